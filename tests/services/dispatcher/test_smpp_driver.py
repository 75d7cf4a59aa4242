"""The driver against an SMSC that keeps to no rule."""

import re
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from libs.contracts.events import LONGEST_PROVIDER_ID, Encoding, GatewayReceipt, Priority, SmsDispatch, SmsInbound
from libs.service_kit.config_file import SmppGateway
from libs.smpp import pdus, tlv
from libs.smpp.receipt import MessageState
from services.dispatcher.drivers.port import Callbacks, Report, Result, Submission, Verdict
from services.dispatcher.drivers.smpp import SmppDriver, _source, _validity_period
from tests.libs.smpp.examples import receipt_tlvs
from tests.libs.smpp.scripted_smsc import Connection, Script, plainly, scripted_smsc
from tests.services.dispatcher.builders import dispatch_event
from tests.waiting import until


class Ground:
    """A driver that is bound to the SMSC, and what it has told."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.reports: list[Report] = []
        self.driver: SmppDriver
        self.smsc: Connection

    async def take(self, reports: Sequence[Report]) -> None:
        self.reports += reports

    async def report(self, pdu: pdus.DeliverSm) -> Report:
        """What becomes of what the SMSC brings."""
        self.smsc.send(1, pdu)
        await until(lambda: self.reports)
        return self.reports[0]

    async def submit_sm(self, dispatch: SmsDispatch, part: int = 1) -> pdus.SubmitSm:
        """What the SMSC reads of a part."""
        before = len(self.smsc.received)
        self.driver.submit([Submission("token", dispatch, part, 7, 8)])
        await until(lambda: len(self.smsc.received) > before)
        pdu = self.smsc.received[before][1]
        assert isinstance(pdu, pdus.SubmitSm)
        return pdu


@asynccontextmanager
async def bound(script: Script = plainly, **dialect: object) -> AsyncIterator[Ground]:
    ground = Ground()
    async with scripted_smsc(script) as smsc:
        given = {"type": "smpp", "id": "demo", "host": "127.0.0.1", "port": smsc.port, "systemId": "demo"} | dialect
        gateway = SmppGateway.model_validate(given)
        callbacks = Callbacks(ground.results.extend, ground.take, lambda: None)
        ground.driver = SmppDriver(gateway, callbacks)
        ground.driver.start()
        await until(lambda: ground.driver.missing is None)
        (ground.smsc,) = smsc.connections
        yield ground
        await ground.driver.stop(1)


def names(message_id: bytes) -> Script:
    """Answer submits with this id, however long."""

    def script(connection: Connection, sequence: int, pdu: pdus.Pdu) -> bool:
        if isinstance(pdu, pdus.SubmitSm):
            header = struct.pack(">IIII", 17 + len(message_id), 0x8000_0004, 0, sequence)
            connection.transport.write(header + message_id + b"\0")
        return isinstance(pdu, pdus.SubmitSm)

    return script


@pytest.mark.parametrize(
    ("answered", "provider_id"),
    [
        (b"a", "a"),
        (b"", None),
        (b" ", None),
        (b"a" * LONGEST_PROVIDER_ID, "a" * LONGEST_PROVIDER_ID),
        (b"a" * (LONGEST_PROVIDER_ID + 1), None),
    ],
    ids=["an id", "none", "blank", "the longest", "too long"],
)
async def test_an_acceptance_has_an_id_of_usable_length_or_none(answered: bytes, provider_id: str | None) -> None:
    async with bound(names(answered)) as ground:
        ground.driver.submit([Submission("token", dispatch_event().data, 1, 7, 8)])
        await until(lambda: ground.results)
    assert ground.results == [Result("token", Verdict.ACCEPTED, provider_id)]


@pytest.mark.parametrize(
    ("command_status", "verdict", "code"),
    [
        (0x04, Verdict.THROTTLED, "smpp.ESME_RINVBNDSTS"),
        (0x0B, Verdict.FAILED, "smpp.ESME_RINVDSTADR"),
        (0x45, Verdict.TEMPORARY, "smpp.ESME_RSUBMITFAIL"),
        (0x58, Verdict.THROTTLED, "smpp.ESME_RTHROTTLED"),
        (0x401, Verdict.TEMPORARY, "smpp.VENDOR_0x401"),
    ],
)
async def test_a_refusal_tells_whose_condition_it_is(command_status: int, verdict: Verdict, code: str) -> None:
    def refuse(connection: Connection, sequence: int, pdu: pdus.Pdu) -> bool:
        if isinstance(pdu, pdus.SubmitSm):
            connection.send(sequence, pdus.SubmitSmResp(command_status))
        return isinstance(pdu, pdus.SubmitSm)

    async with bound(refuse) as ground:
        ground.driver.submit([Submission("token", dispatch_event().data, 1, 7, 8)])
        await until(lambda: ground.results)
    assert [(r.token, r.verdict, r.code) for r in ground.results] == [("token", verdict, code)]


async def test_what_fits_no_submit_fails_and_what_comes_when_there_is_no_bind_is_not_sent() -> None:
    async with bound() as ground:
        ground.driver.submit([Submission("long", dispatch_event(phone="+" + "2" * 30).data, 1, 7, 8)])
    ground.driver.submit([Submission("late", dispatch_event().data, 1, 7, 8)])
    told = [(r.token, r.verdict, r.code) for r in ground.results]
    assert told == [("long", Verdict.FAILED, "smpp.unencodable"), ("late", Verdict.NOT_SENT, None)]


async def test_an_answer_and_its_receipt_name_one_id_however_each_writes_it() -> None:
    text = b"id:0031 sub:001 dlvrd:000 submit date:2603011200 done date:2603011202 stat:UNDELIV err:0A1 text:hello"
    async with bound(names(b"1F"), responseIdFormat="hex", receiptIdFormat="decimal") as ground:
        ground.driver.submit([Submission("token", dispatch_event().data, 1, 7, 8)])
        await until(lambda: ground.results)
        report = await ground.report(pdus.DeliverSm("254711000001", "demo", text, esm_class=4))
    assert isinstance(report, GatewayReceipt)
    assert report.provider_id == ground.results[0].provider_id == "31"
    assert (report.state, report.error, report.carrier_time) == ("undeliverable", "0A1", "2603011202")


@pytest.mark.parametrize(
    ("dialect", "came_from", "came_to"),
    [({}, "254711000001", "21020"), ({"receiptAddressesSwapped": False}, "21020", "254711000001")],
)
async def test_a_receipt_names_the_number_that_the_message_went_to(
    dialect: dict[str, object], came_from: str, came_to: str
) -> None:
    async with bound(**dialect) as ground:
        receipt = pdus.DeliverSm(came_from, came_to, tlvs=receipt_tlvs("a", MessageState.DELIVERED))
        report = await ground.report(receipt)
    assert isinstance(report, GatewayReceipt)
    assert report.destination == "254711000001"


@pytest.mark.parametrize(
    ("value", "reference"),
    [
        (b"\x01\x02", 258),
        (b"\0\0", 0),
        (b"", None),
        (b"\x07", None),
        (b"\0" * 6 + b"\x01\x02", None),
        (b"\xff" * 8, None),
    ],
)
async def test_a_reference_of_another_length_than_two_octets_is_none(value: bytes, reference: int | None) -> None:
    tlvs = {**receipt_tlvs("a", MessageState.DELIVERED), tlv.USER_MESSAGE_REFERENCE: value}
    async with bound() as ground:
        report = await ground.report(pdus.DeliverSm("254711000001", "demo", esm_class=4, tlvs=tlvs))
    assert isinstance(report, GatewayReceipt)
    assert (report.provider_id, report.reference) == ("a", reference)


@pytest.mark.parametrize(
    ("text", "state", "word"),
    [
        (b"id:7 stat:SUBMITD err:000", "enroute", "SUBMITD"),
        (b"id:7 stat:Partly_sent_16ch err:000", "enroute", "Partly_sent_16ch"),
        (b"id:7 stat:a_word_that_is_too_long err:000", "enroute", None),
        (b"id:7 stat:caf\xe9 err:000", "enroute", None),
        (b"id:7 stat: err:000", "enroute", None),
        (b"id:7", "enroute", None),
        (b"id:7 stat:UNKNOWN err:000", "unknown", None),
        (b"id:7 stat:EXPIRD err:000", "expired", None),
    ],
)
async def test_a_word_that_we_have_no_state_for_is_told_and_nothing_final(
    text: bytes, state: str, word: str | None
) -> None:
    async with bound() as ground:
        report = await ground.report(pdus.DeliverSm("254711000001", "demo", text, esm_class=4))
    assert isinstance(report, GatewayReceipt)
    assert (report.provider_id, report.state, report.word) == ("7", state, word)


@pytest.mark.parametrize(
    ("values", "read"),
    [((b"\x01\x02", b"\x03", b"\x01"), (258, 3, 1)), ((b"\x01" * 8, b"\x01" * 8, b"\x01" * 8), (None, None, None))],
)
async def test_joining_fields_of_another_length_are_none(
    values: tuple[bytes, bytes, bytes], read: tuple[int | None, int | None, int | None]
) -> None:
    tags = (tlv.SAR_MSG_REF_NUM, tlv.SAR_TOTAL_SEGMENTS, tlv.SAR_SEGMENT_SEQNUM)
    async with bound() as ground:
        report = await ground.report(
            pdus.DeliverSm("254711000001", "demo", short_message=b"hello", tlvs=dict(zip(tags, values, strict=True)))
        )
    assert isinstance(report, SmsInbound)
    assert (report.sar_reference, report.sar_total, report.sar_part) == read


@pytest.mark.parametrize(
    ("address", "configured", "expected"),
    [
        ("ACME", (5, 0), ("ACME", 5, 0)),
        ("ACME", (5, 1), ("ACME", 5, 1)),
        ("ACME Bank", (1, 1), ("ACME Bank", 5, 0)),
        ("+254711000001", (5, 0), ("254711000001", 1, 1)),
        ("254711000001", (5, 0), ("254711000001", 1, 1)),
        ("2541100", (5, 0), ("2541100", 3, 0)),
        ("25411000", (5, 0), ("25411000", 1, 1)),
        ("20414", (6, 9), ("20414", 6, 9)),
        ("", (1, 1), ("", 1, 1)),
    ],
)
def test_the_type_of_number_is_that_of_the_sender(
    address: str, configured: tuple[int, int], expected: tuple[str, int, int]
) -> None:
    assert _source(address, *configured, as_told=False) == expected


@pytest.mark.parametrize(
    ("configured", "sender", "sent"),
    [
        ({"source_address": "ACME", "source_ton": 0, "source_npi": 1}, "ACME", ("ACME", 0, 1)),
        ({"source_address": "20414", "source_ton": 5}, "20414", ("20414", 5, 0)),
        ({"source_address": "+254711000001", "source_npi": 9}, "+254711000001", ("254711000001", 5, 9)),
        ({"source_address": "20414", "source_ton": 5}, "ACME", ("ACME", 5, 0)),
        ({"source_address": "20414", "source_ton": 5}, "30515", ("30515", 3, 0)),
        ({"source_address": "20414"}, "20414", ("20414", 3, 0)),
        ({}, None, ("", 5, 0)),
    ],
)
def test_the_type_of_number_that_is_told_of_the_configured_address_is_kept(
    configured: dict[str, Any], sender: str | None, sent: tuple[str, int, int]
) -> None:
    gateway = SmppGateway(type="smpp", id="demo", host="127.0.0.1", port=1, system_id="demo", **configured)
    ground = Ground()
    driver = SmppDriver(gateway, Callbacks(ground.results.extend, ground.take, lambda: None))
    dispatch = replace(dispatch_event().data, source_address=sender)
    pdu = driver._submit_sm(Submission("token", dispatch, 1, 7, 8), datetime.now(UTC))
    assert (pdu.source_addr, pdu.source_addr_ton, pdu.source_addr_npi) == sent


async def test_the_number_that_it_goes_to_is_told_without_its_plus_and_of_the_type_that_is_configured() -> None:
    async with bound(destinationTon=2, destinationNpi=9, serviceType="CMT") as ground:
        submit_sm = await ground.submit_sm(dispatch_event(phone="+254711000001").data)
    assert submit_sm.destination_addr == "254711000001"
    assert (submit_sm.dest_addr_ton, submit_sm.dest_addr_npi, submit_sm.service_type) == (2, 9, "CMT")


@pytest.mark.parametrize(
    ("alphabet", "encoding", "written"),
    [
        ("gsm", Encoding.GSM7, (0, b"\x00\x05\x11 5 \x1b\x28")),
        ("latin1", Encoding.GSM7, (0, b"@\xe9_ 5 {")),
        ("latin1", Encoding.UCS2, (8, "@é_ 5 {".encode("utf-16-be"))),
    ],
)
async def test_a_text_is_written_in_the_encoding_that_was_decided_and_the_alphabet_that_the_carrier_has(
    alphabet: str, encoding: Encoding, written: tuple[int, bytes]
) -> None:
    async with bound(defaultAlphabet=alphabet) as ground:
        submit_sm = await ground.submit_sm(replace(dispatch_event("@é_ 5 {").data, encoding=encoding))
    assert (submit_sm.data_coding, submit_sm.short_message) == written


async def test_a_character_that_is_not_in_the_carriers_alphabet_fails_the_message_and_is_not_told() -> None:
    async with bound(defaultAlphabet="latin1") as ground:
        ground.driver.submit([Submission("token", dispatch_event("5 €").data, 1, 7, 8)])
        assert not ground.smsc.of(pdus.SubmitSm)
    (result,) = ground.results
    assert (result.verdict, result.code) == (Verdict.FAILED, "smpp.unencodable")
    assert result.words == "text: has a character that latin1 lacks"


@pytest.mark.parametrize(("came", "told"), [(0, 3), (3, 3), (8, 8)])
async def test_what_a_person_wrote_is_told_under_the_coding_that_names_its_alphabet(came: int, told: int) -> None:
    async with bound(defaultAlphabet="latin1") as ground:
        pdu = pdus.DeliverSm("254711000001", "demo", b"hello", data_coding=came, esm_class=0x40)
        report = await ground.report(pdu)
    assert isinstance(report, SmsInbound)
    assert (report.source, report.destination, report.content_hex) == ("254711000001", "demo", b"hello".hex())
    assert (report.data_coding, report.esm_class) == (told, 0x40)


@pytest.mark.parametrize(
    ("dialect", "tlvs"), [({}, {tlv.USER_MESSAGE_REFERENCE: b"\0\x08"}), ({"userMessageReference": False}, {})]
)
async def test_a_submit_has_an_optional_parameter_only_where_the_carrier_knows_them(
    dialect: dict[str, object], tlvs: dict[int, bytes]
) -> None:
    async with bound(**dialect) as ground:
        assert (await ground.submit_sm(dispatch_event().data)).tlvs == tlvs


@pytest.mark.parametrize(
    ("dialect", "priority", "flag"),
    [({}, Priority.HIGH, 1), ({}, Priority.NORMAL, 0), ({"priorityFlag": False}, Priority.HIGH, 0)],
)
async def test_high_priority_is_told_to_the_carrier(dialect: dict[str, object], priority: Priority, flag: int) -> None:
    async with bound(**dialect) as ground:
        assert (await ground.submit_sm(dispatch_event(priority=priority).data)).priority_flag == flag


async def test_the_carrier_is_told_how_much_longer_a_message_is_valid() -> None:
    async with bound() as ground:
        told = (await ground.submit_sm(dispatch_event(valid_seconds=300).data)).validity_period
    assert re.fullmatch(r"00000000(0[0-5])[0-5][0-9]000R", told)
    async with bound(validityPeriod=False) as ground:
        assert (await ground.submit_sm(dispatch_event().data)).validity_period == ""


@pytest.mark.parametrize(
    ("remaining", "period"),
    [
        (timedelta(minutes=5), "000000000500000R"),
        (timedelta(days=2, hours=3, minutes=4, seconds=5, milliseconds=900), "000002030405000R"),
        (timedelta(seconds=-1), "000000000001000R"),
        (timedelta(milliseconds=900), "000000000001000R"),
        (timedelta(days=29, hours=23, minutes=59, seconds=59), "000029235959000R"),
        (timedelta(days=30, seconds=1), "000030000000000R"),
        (timedelta(days=4000), "000030000000000R"),
    ],
)
def test_a_validity_period_is_relative(remaining: timedelta, period: str) -> None:
    assert _validity_period(remaining.days, remaining.seconds) == period


@pytest.mark.parametrize(
    ("told", "asked"), [("each", [1, 1, 1]), ("first", [1, 0, 0]), ("last", [0, 0, 1]), ("none", [0, 0, 0])]
)
async def test_a_receipt_is_asked_for_of_the_parts_that_the_gateway_is_told(told: str, asked: list[int]) -> None:
    dispatch = dispatch_event("x" * 400).data
    async with bound(receipts=told) as ground:
        submits = [await ground.submit_sm(dispatch, part) for part in (1, 2, 3)]
    assert [submit_sm.registered_delivery for submit_sm in submits] == asked
