from __future__ import annotations

import struct

import pytest

from libs.smpp import tlv
from libs.smpp.pdus import (
    HEADER,
    BindResp,
    BindType,
    DataSm,
    EnquireLink,
    EnquireLinkResp,
    GenericNack,
    SubmitSm,
    SubmitSmResp,
    Unbind,
    UnbindResp,
)
from libs.smpp.status import CommandStatus
from tests.services.simulated_carrier.conftest import RunningCarrier, StartCarrier
from tests.services.simulated_carrier.raw_client import RawClient, sms
from tests.waiting import until


@pytest.mark.parametrize("bind_type", list(BindType))
async def test_each_kind_of_bind_is_granted(carrier: RunningCarrier, bind_type: BindType) -> None:
    client = await carrier.connect()
    response = await client.bind("demo", bind_type)
    assert (response.command_status, response.bind_type, response.system_id) == (0, bind_type, "demo")
    assert response.tlvs == {tlv.SC_INTERFACE_VERSION: b"\x34"}


async def test_a_second_bind_on_one_connection_is_refused_and_the_first_stays(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    assert (await client.bind()).command_status == CommandStatus.ESME_RALYBND
    assert (await client.submit(sms())).command_status == 0


async def test_accounts_limit_who_may_bind(start_carrier: StartCarrier) -> None:
    carrier = await start_carrier(accounts={"bank": "secret"})
    statuses = [
        (await (await carrier.connect()).bind(system_id, password=password)).command_status
        for system_id, password in (("bank", "secret"), ("bank", "wrong"), ("clinic", "secret"))
    ]
    assert statuses == [0, CommandStatus.ESME_RINVPASWD, CommandStatus.ESME_RINVSYSID]


async def test_more_binds_than_allowed_are_refused_until_one_is_gone(carrier: RunningCarrier) -> None:
    await carrier.steer(binds={"max_per_system_id": 1})
    first = await carrier.bound()
    second = await carrier.connect()
    assert (await second.bind()).command_status == CommandStatus.ESME_RALYBND
    assert (await (await carrier.connect()).bind("other")).command_status == 0
    first.transport.abort()
    await until(lambda: len(carrier.carrier.accounts["demo"].sessions) == 0)
    assert (await second.bind()).command_status == 0
    sessions = await carrier.get("/sessions")
    assert sessions["system_ids"]["demo"]["most_bound_at_once"] == 1


async def test_binds_are_refused_as_often_as_asked(carrier: RunningCarrier) -> None:
    await carrier.steer(binds={"refuse_next": 1})
    client = await carrier.connect()
    assert (await client.bind()).command_status == CommandStatus.ESME_RBINDFAIL
    assert (await client.bind()).command_status == 0


async def test_a_submit_is_answered_with_an_id_of_its_own(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    sequences = client.send(*[sms() for _ in range(50)])
    answers = [await client.receive(SubmitSmResp) for _ in range(50)]
    assert [sequence for sequence, _ in answers] == sequences
    assert {answer.command_status for _, answer in answers} == {0}
    assert len({answer.message_id for _, answer in answers}) == 50


@pytest.mark.parametrize("bind_type", [None, BindType.RECEIVER])
async def test_only_a_bound_transmitter_may_submit(carrier: RunningCarrier, bind_type: BindType | None) -> None:
    client = await carrier.connect()
    if bind_type:
        await client.bind("demo", bind_type)
    assert (await client.submit(sms())).command_status == CommandStatus.ESME_RINVBNDSTS
    assert carrier.entries() == []


@pytest.mark.parametrize(
    ("source", "destination", "status"),
    [
        ("1" * 20, "4" * 20, CommandStatus.ESME_ROK),
        ("", "4", CommandStatus.ESME_ROK),
        ("1", "", CommandStatus.ESME_RINVDSTADR),
        ("1", "4" * 21, CommandStatus.ESME_RINVDSTADR),
        ("1" * 21, "4", CommandStatus.ESME_RINVSRCADR),
    ],
)
async def test_a_destination_must_be_an_address_and_a_source_no_longer_than_one(
    carrier: RunningCarrier, source: str, destination: str, status: CommandStatus
) -> None:
    client = await carrier.bound()
    body = b"\0\0\0%b\0\0\0%b\0" % (source.encode(), destination.encode()) + bytes(10)
    client.transport.write(HEADER.pack(HEADER.size + len(body), SubmitSm.command_id, 0, 5) + body)
    sequence, answer = await client.receive(SubmitSmResp)
    assert (sequence, answer.command_status) == (5, status)


async def test_the_carrier_answers_enquire_link_bound_or_not(carrier: RunningCarrier) -> None:
    client = await carrier.connect()
    for _ in range(2):
        (sequence,) = client.send(EnquireLink())
        assert await client.receive(EnquireLinkResp) == (sequence, EnquireLinkResp())
        await client.bind()


async def test_unbind_is_answered_behind_the_submits_before_it_and_ends_the_connection(
    carrier: RunningCarrier,
) -> None:
    client = await carrier.bound()
    client.send(*[sms(registered_delivery=0)] * 2, Unbind(), sms())
    await client.ended.wait()
    assert [type(pdu) for _, pdu in client.inbox] == [SubmitSmResp, SubmitSmResp, UnbindResp]
    assert len(carrier.entries()) == 2, "what comes behind it is not taken"


async def test_an_unknown_command_gets_generic_nack_and_the_session_lives(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    client.transport.write(struct.pack(">IIII", 16, 0x0999, 0, 77))
    sequence, nack = await client.receive(GenericNack)
    assert (sequence, nack.command_status) == (77, CommandStatus.ESME_RINVCMDID)
    client.send(DataSm("a", "b"))
    assert (await client.receive(GenericNack))[1].command_status == CommandStatus.ESME_RINVCMDID
    assert (await client.submit(sms())).command_status == 0


async def test_a_submit_that_is_cut_off_is_refused_as_a_submit(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    client.transport.write(struct.pack(">IIII", 20, SubmitSm.command_id, 0, 78) + b"abcd")
    sequence, answer = await client.receive(SubmitSmResp)
    assert (sequence, answer.command_status) == (78, CommandStatus.ESME_RINVCMDLEN)


async def test_an_impossible_length_gets_generic_nack_and_ends_the_connection(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    client.transport.write(sms(registered_delivery=0).encode(5) + b"GET / HTTP/1.1\r\n\r\n")
    await client.ended.wait()
    (_, answer), (_, nack) = client.inbox
    assert isinstance(answer, SubmitSmResp)
    assert nack == GenericNack(CommandStatus.ESME_RINVCMDLEN)


async def test_an_error_in_a_response_is_not_answered(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    client.transport.write(struct.pack(">IIII", 16, 0x8000_0999, 0, 79))
    assert await client.is_quiet(GenericNack)


async def test_a_pdu_may_come_octet_by_octet(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    for octet in sms().encode(9):
        client.transport.write(bytes([octet]))
    assert (await client.receive(SubmitSmResp))[0] == 9


async def test_a_connection_that_never_binds_is_closed(start_carrier: StartCarrier) -> None:
    carrier = await start_carrier(bind_timeout_seconds=0.2)
    client = await carrier.connect()

    def ended() -> bool:
        client.send(EnquireLink())  # however much else it says
        return client.ended.is_set()

    await until(ended)


async def test_a_silent_peer_is_asked_and_closed_unless_it_answers(start_carrier: StartCarrier) -> None:
    carrier = await start_carrier(enquire_link_seconds=0.2, enquire_link_timeout_seconds=0.3)
    answering, mute = await carrier.bound(), await carrier.bound()
    for _ in range(4):
        sequence, _ = await answering.receive(EnquireLink)
        answering.transport.write(EnquireLinkResp().encode(sequence))
    await until(mute.ended.is_set)
    assert (await answering.submit(sms())).command_status == 0


async def test_a_carrier_that_does_not_read_takes_nobody_for_silent(start_carrier: StartCarrier) -> None:
    carrier = await start_carrier(enquire_link_seconds=0.1, enquire_link_timeout_seconds=0.1)
    client = await carrier.bound()
    await carrier.steer(reading={"bytes_per_second": 0})
    other = await start_carrier(
        enquire_link_seconds=0.1, enquire_link_timeout_seconds=0.3, ledger_directory=carrier.directory / "other"
    )
    mute = await other.bound()
    await until(mute.ended.is_set)  # by then the first would have been asked and closed
    assert not client.ended.is_set()
    assert not any(isinstance(pdu, EnquireLink) for _, pdu in client.inbox)


async def test_stopping_unbinds_and_ends_every_session(carrier: RunningCarrier) -> None:
    clients = [await carrier.bound(), await carrier.bound("other")]
    await carrier.carrier.stop()
    for client in clients:
        assert (await client.receive(Unbind))[1] == Unbind()
        await until(client.ended.is_set)
    with pytest.raises(ConnectionRefusedError):
        await carrier.connect()


async def test_sessions_show_who_is_bound(carrier: RunningCarrier) -> None:
    clients: list[RawClient] = [await carrier.bound(), await carrier.bound("demo", BindType.RECEIVER)]
    clients.append(await carrier.bound("other", BindType.TRANSMITTER))
    await carrier.connect()
    shown = await carrier.get("/sessions")
    assert shown["connections"] == 4
    demo = shown["system_ids"]["demo"]
    assert (demo["bound"], demo["most_bound_at_once"]) == (2, 2)
    assert {session["bind_type"] for session in demo["sessions"]} == {"transceiver", "receiver"}
    clients[0].transport.abort()
    await until(lambda: len(carrier.carrier.accounts["demo"].sessions) == 1)
    demo = (await carrier.get("/sessions"))["system_ids"]["demo"]
    assert (demo["bound"], demo["most_bound_at_once"]) == (1, 2)


async def test_a_bind_that_is_refused_leaves_the_connection_to_try_again(carrier: RunningCarrier) -> None:
    await carrier.steer(binds={"refuse_for_ms": 60_000})
    client = await carrier.connect()
    assert (await client.bind()).command_status == CommandStatus.ESME_RBINDFAIL
    await carrier.steer(binds={"refuse_for_ms": 0})
    response: BindResp = await client.bind()
    assert response.command_status == 0
