"""What the carrier does to its peers on request, seen from the peer's side, and what the ledger says of it."""

from __future__ import annotations

import asyncio
import time

import pytest

from libs.smpp import tlv
from libs.smpp.pdus import DeliverSm, EnquireLink, EnquireLinkResp, SubmitSmResp
from libs.smpp.status import CommandStatus
from libs.sms_text.segments import segments
from services.simulated_carrier.ledger import Concatenation
from tests.services.simulated_carrier.conftest import RunningCarrier
from tests.services.simulated_carrier.raw_client import sms
from tests.services.simulated_carrier.texts import join_texts
from tests.waiting import until


async def test_the_ledger_has_each_submit_before_its_response_is_read(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    for count in range(1, 20):
        response = await client.submit(sms(text=b"number %d" % count, data_coding=3))
        entry = carrier.entries()[-1]
        assert (entry.sequence, entry.provider_id) == (count, response.message_id)
        assert (entry.system_id, entry.source, entry.destination) == ("demo", "bank", "4917012345678")
        assert bytes.fromhex(entry.short_message) == b"number %d" % count
        assert (entry.accepted, entry.command_status, entry.data_coding) == (True, 0, 3)
        assert (entry.registered_delivery, entry.esm_class, entry.concatenation) == (1, 0, None)


async def test_the_ledger_has_the_parts_of_a_text_by_header_by_sar_and_a_payload(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    pieces = segments("a long text " * 30, reference=0xBEEF)
    client.send(
        *[sms(text=piece.short_message, esm_class=piece.esm_class, data_coding=piece.data_coding) for piece in pieces],
        sms(text=b"", tlvs={tlv.MESSAGE_PAYLOAD: b"by payload"}),
        sms(
            text=b"by sar",
            tlvs={
                tlv.SAR_MSG_REF_NUM: b"\1\2",
                tlv.SAR_TOTAL_SEGMENTS: b"\3",
                tlv.SAR_SEGMENT_SEQNUM: b"\2",
            },
        ),
        sms(text=b"\xff", esm_class=0x40),
    )
    for _ in range(len(pieces) + 3):
        await client.receive(SubmitSmResp)
    *parts, payload, sar, broken = carrier.entries()
    assert [part.concatenation for part in parts] == [Concatenation(0xBEEF, n, 3) for n in (1, 2, 3)]
    assert bytes.fromhex(payload.short_message) == b"by payload"
    assert sar.concatenation == Concatenation(0x0102, 2, 3)
    assert (broken.concatenation, broken.short_message) == (None, "ff")
    assert [joined.text for joined in join_texts(parts)] == ["a long text " * 30]


async def test_a_refused_submit_gets_its_status_no_receipt_and_a_flag_in_the_ledger(carrier: RunningCarrier) -> None:
    await carrier.steer(refusals={"next": 1, "command_status": 0x45})
    client = await carrier.bound()
    response = await client.submit(sms())
    assert (response.command_status, response.message_id) == (0x45, "")
    assert await client.is_quiet(DeliverSm)
    (entry,) = carrier.entries()
    assert (entry.accepted, entry.command_status, entry.provider_id) == (False, 0x45, None)
    assert (await client.submit(sms())).command_status == 0


async def test_above_the_limit_submits_are_throttled(carrier: RunningCarrier) -> None:
    await carrier.steer(throttle={"segments_per_second": 5})
    client = await carrier.bound()
    client.send(*[sms() for _ in range(8)])
    statuses = [(await client.receive(SubmitSmResp))[1].command_status for _ in range(8)]
    assert statuses == [0] * 5 + [CommandStatus.ESME_RTHROTTLED] * 3
    assert (await carrier.get("/stats"))["refused"] == {"ESME_RTHROTTLED": 3}


async def test_a_wall_clock_that_is_set_back_throttles_nobody(
    carrier: RunningCarrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    await carrier.steer(throttle={"segments_per_second": 1}, binds={"refuse_for_ms": 1})
    await asyncio.sleep(0.01)
    client = await carrier.bound()
    assert (await client.submit(sms())).command_status == 0
    wall_clock = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: wall_clock() - 60_000_000_000)
    await asyncio.sleep(1.1)
    assert (await client.submit(sms())).command_status == 0
    await carrier.bound()


@pytest.mark.parametrize("accept", [True, False])
async def test_silence_answers_nothing_and_the_ledger_says_whether_it_was_accepted(
    carrier: RunningCarrier, accept: bool
) -> None:
    await carrier.steer(silence={"next": 2, "accept": accept})
    client = await carrier.bound()
    sequences = client.send(sms(), sms(), sms())
    assert (await client.receive(SubmitSmResp))[0] == sequences[2]
    assert [(entry.accepted, entry.command_status) for entry in carrier.entries()] == [
        (accept, "silent"),
        (accept, "silent"),
        (True, 0),
    ]
    for _ in range(3 if accept else 1):
        await client.take_delivery()
    assert await client.is_quiet(DeliverSm)
    assert (await carrier.get("/stats"))["unanswered"] == 2


@pytest.mark.parametrize(
    ("point", "accepted", "answers"),
    [("before_accept", [True, False], 1), ("after_accept", [True, True], 1), ("after_response", [True, True], 2)],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_the_connection_drops_at_a_submit(
    carrier: RunningCarrier, point: str, accepted: list[bool], answers: int, reset: bool
) -> None:
    await carrier.steer(drop={"after": 2, "point": point, "reset": reset})
    client = await carrier.bound()
    client.send(*[sms() for _ in range(4)])
    await until(client.ended.is_set)
    assert [entry.accepted for entry in carrier.entries()] == accepted
    assert isinstance(client.error, ConnectionResetError) is reset
    if not reset:  # a reset may overtake what was written
        assert [type(pdu) for _, pdu in client.inbox] == [SubmitSmResp] * answers
    again = await carrier.bound()
    for _ in range(sum(accepted)):
        await again.take_delivery()
    assert (await again.submit(sms())).command_status == 0


@pytest.mark.parametrize("reset", [False, True])
async def test_sessions_are_dropped_on_request(carrier: RunningCarrier, reset: bool) -> None:
    client, other = await carrier.bound(), await carrier.bound("other")
    async with carrier.http.post("/actions/drop-sessions", json={"system_id": "demo", "reset": reset}) as response:
        assert await response.json() == {"dropped": 1}
    await until(client.ended.is_set)
    assert isinstance(client.error, ConnectionResetError) is reset
    assert (await other.submit(sms())).command_status == 0
    async with carrier.http.post("/actions/drop-sessions") as response:
        assert await response.json() == {"dropped": 1}
    await until(other.ended.is_set)


async def test_responses_are_late_by_their_delay_and_each_is_answered(carrier: RunningCarrier) -> None:
    await carrier.steer(responses={"delay_ms": 100})
    client = await carrier.bound()
    sequences = client.send(*[sms(registered_delivery=0) for _ in range(3)])
    assert await client.is_quiet(SubmitSmResp)
    assert len(carrier.entries()) == 3
    assert [(await client.receive(SubmitSmResp))[0] for _ in range(3)] == sequences


async def test_a_carrier_that_does_not_read_answers_nothing_until_it_reads_again(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    await carrier.steer(reading={"bytes_per_second": 0})
    client.send(EnquireLink())
    with pytest.raises(asyncio.TimeoutError):
        await client.receive(EnquireLinkResp, seconds=0.2)
    late = await carrier.connect()
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.2):
            await late.bind()
    await carrier.steer(reading={"bytes_per_second": None})
    await client.receive(EnquireLinkResp)
    assert (await client.submit(sms())).command_status == 0


async def test_a_slow_reader_takes_its_time(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    size = len(sms().encode(1))
    await carrier.steer(reading={"bytes_per_second": size * 20})
    loop = asyncio.get_running_loop()
    started = loop.time()
    for _ in range(5):
        await client.submit(sms())
    assert loop.time() - started >= 4 / 20 * 0.9


async def test_a_ledger_that_cannot_be_written_answers_nothing_and_ends_the_connection(
    carrier: RunningCarrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(_entries: object) -> None:
        raise OSError("no space")

    client = await carrier.bound()
    monkeypatch.setattr(carrier.carrier.ledger, "append", full_disk)
    client.send(sms())
    await until(client.ended.is_set)
    assert client.inbox == []
