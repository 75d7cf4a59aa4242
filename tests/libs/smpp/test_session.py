"""The session against a scripted SMSC: every way in which a bind, a submit or the silence after it can come out."""

import asyncio
import socket
import struct
import time
from dataclasses import replace
from typing import Any

import pytest

from libs.smpp import connect, pdus
from libs.smpp.errors import BindError
from libs.smpp.pdus import BindType, Pdu, SubmitSm
from libs.smpp.status import CommandStatus
from libs.smpp.submission import Answer, Submission, Unsent, UnsentReason
from tests.libs.smpp.scripted_smsc import Connection, scripted_smsc
from tests.libs.smpp.session_owner import ANSWERED, SESSION_CLOSED, TIMED_OUT, Owner, bound, silent, submissions
from tests.waiting import WITHIN_SECONDS, until

# Binding.


@pytest.mark.parametrize("bind_type", list(BindType))
async def test_a_bind_says_who_we_are(bind_type: BindType) -> None:
    async with scripted_smsc() as smsc, bound(smsc, bind_type=bind_type, system_type="VMA") as (_, session, connection):
        expected = pdus.Bind(bind_type, "client", "secret", "VMA", 0x34)
        assert connection.received == [(1, expected)]
        assert session.bound
        assert session.free_window == 10


@pytest.mark.parametrize("nack", [False, True], ids=["bind_resp", "generic_nack"])
async def test_a_refused_bind_is_told_in_words(nack: bool) -> None:
    def refuse(connection: Connection, sequence: int, _pdu: Pdu) -> bool:
        status = CommandStatus.ESME_RINVPASWD
        connection.send(sequence, pdus.GenericNack(status) if nack else pdus.BindResp(BindType.TRANSCEIVER, status))
        return True

    async with scripted_smsc(refuse) as smsc:
        with pytest.raises(BindError, match="the password is wrong") as raised:
            await Owner().open(smsc.config())
        assert raised.value.command_status is CommandStatus.ESME_RINVPASWD
        assert "secret" not in str(raised.value)
        await until(lambda: smsc.connections[0].lost)


async def test_a_bind_without_an_answer_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "BIND_SECONDS", 0.1)
    async with scripted_smsc(lambda *_: True) as smsc:
        with pytest.raises(BindError, match=r"no answer to the bind within 0\.1 s") as raised:
            await Owner().open(smsc.config())
        assert raised.value.command_status is None
        await until(lambda: smsc.connections[0].lost)


async def test_a_connection_closed_during_the_bind_is_told_at_once() -> None:
    def hang_up(connection: Connection, _sequence: int, _pdu: Pdu) -> bool:
        connection.transport.close()
        return True

    async with scripted_smsc(hang_up) as smsc:
        with pytest.raises(BindError, match="closed the connection"):
            await Owner().open(smsc.config())


async def test_nobody_listening_is_told_in_words() -> None:
    async with scripted_smsc() as smsc:
        config = smsc.config()
    with pytest.raises(BindError, match="no connection to the provider"):
        await Owner().open(config)


async def test_of_a_names_addresses_one_that_does_not_answer_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, resolve = asyncio.get_running_loop(), asyncio.BaseEventLoop.getaddrinfo
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as silent,
        socket.socket() as first,
        socket.socket() as second,
    ):
        for waiting in (first, second):  # what comes after them gets no answer
            waiting.setblocking(False)
            waiting.connect_ex(silent.getsockname())

        async def addresses(_: object, host: str, port: int, **how: Any) -> Any:
            return [
                *await resolve(loop, *silent.getsockname(), **how),
                *await resolve(loop, "127.0.0.1", port, **how),
            ]

        async with scripted_smsc() as smsc:
            monkeypatch.setattr(type(loop), "getaddrinfo", addresses)
            session = await Owner().open(replace(smsc.config(), host="smsc.example"))
            assert session.bound
            session.end("it is over", cut=True)


# Submitting.


async def test_submits_leave_in_order_and_their_answers_come_in_batches() -> None:
    async with scripted_smsc() as smsc, bound(smsc) as (owner, session, connection):
        assert session.submit_many(submissions("a", "b", "c")) == []
        assert session.free_window == 7
        await until(lambda: len(owner.answers) == 3)
        assert owner.answers == [Answer(token, ANSWERED, 0, f"id-{n}") for token, n in (("a", 2), ("b", 3), ("c", 4))]
        assert len(owner.batches) == 1
        assert connection.of(SubmitSm) == [2, 3, 4]
        assert session.free_window == 10


async def test_what_exceeds_the_window_is_told_as_unsent_and_is_not_sent() -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc, window=2) as (owner, session, connection):
        assert session.submit_many(submissions("a", "b", "c")) == [
            Unsent("c", UnsentReason.WINDOW_FULL, "the window is full")
        ]
        assert session.free_window == 0
        await until(lambda: len(connection.of(SubmitSm)) == 2)
        connection.answer(2, connection.received[1][1])
        await until(lambda: session.free_window == 1)
        assert owner.kinds == {"a": ANSWERED}


async def test_a_submission_that_fits_no_pdu_is_unsent_and_holds_up_no_other() -> None:
    async with scripted_smsc() as smsc, bound(smsc) as (owner, session, connection):
        bad = Submission("bad", SubmitSm("x" * 30, "254711000001"))
        (unsent,) = session.submit_many([bad, *submissions("good")])
        assert (unsent.token, unsent.reason) == ("bad", UnsentReason.INVALID)
        assert "source_addr" in unsent.words
        await until(lambda: owner.kinds == {"good": ANSWERED})
        assert len(connection.of(SubmitSm)) == 1


@pytest.mark.parametrize("status", [0x58, 0x0B, 0x401, 0xFFFFFFFF])
async def test_a_refusal_comes_with_its_code_even_an_unheard_of_one(status: int) -> None:
    def refuse(connection: Connection, sequence: int, pdu: Pdu) -> bool:
        if isinstance(pdu, SubmitSm):
            connection.send(sequence, pdus.SubmitSmResp(status))
        return isinstance(pdu, SubmitSm)

    async with scripted_smsc(refuse) as smsc, bound(smsc) as (owner, session, _):
        session.submit_many(submissions("a"))
        await until(lambda: owner.answers)
        assert owner.answers == [Answer("a", ANSWERED, status, "")]
        assert session.bound


@pytest.mark.parametrize(("sent", "told"), [(CommandStatus.ESME_RINVCMDID, 3), (0, 0xFF)])
async def test_a_generic_nack_is_a_refusal_whatever_its_code(sent: int, told: int) -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, connection):
        session.submit_many(submissions("a"))
        await until(lambda: connection.of(SubmitSm))
        connection.send(2, pdus.GenericNack(sent))
        await until(lambda: owner.answers)
        assert owner.answers == [Answer("a", ANSWERED, told, "")]


async def test_responses_to_nothing_are_ignored() -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, connection):
        session.submit_many(submissions("a"))
        await until(lambda: connection.of(SubmitSm))
        connection.send(99, pdus.SubmitSmResp(0, "x"))
        connection.send(98, pdus.GenericNack(3))
        connection.send(97, pdus.EnquireLinkResp())
        connection.send(96, pdus.Outbind())
        connection.send(1, pdus.BindResp(BindType.TRANSCEIVER))
        connection.transport.write(struct.pack(">IIII", 16, 0x80000777, 0, 95))
        connection.send(2, pdus.SubmitSmResp(0, "x"))
        connection.send(2, pdus.SubmitSmResp(0, "again"))
        await until(lambda: owner.answers)
        connection.send(50, pdus.EnquireLink())
        await until(lambda: 50 in connection.of(pdus.EnquireLinkResp))
        assert owner.answers == [Answer("a", ANSWERED, 0, "x")]
        assert not connection.of(pdus.GenericNack)
        assert session.bound


async def test_answers_split_over_tcp_segments_are_put_together() -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, connection):
        session.submit_many(submissions("a", "b"))
        await until(lambda: len(connection.of(SubmitSm)) == 2)
        for octet in pdus.SubmitSmResp(0, "x").encode(2) + pdus.SubmitSmResp(0, "y").encode(3):
            connection.transport.write(bytes([octet]))
            await asyncio.sleep(0)
        await until(lambda: len(owner.answers) == 2)
        assert [answer.message_id for answer in owner.answers] == ["x", "y"]


# Silence.


async def test_no_answer_is_told_without_further_traffic_and_a_late_one_still_counts_once() -> None:
    changes = {"response_timeout_seconds": 0.1, "window": 1}
    async with scripted_smsc(silent) as smsc, bound(smsc, **changes) as (owner, session, connection):
        session.submit_many(submissions("a"))
        await until(lambda: owner.answers)
        assert owner.answers == [Answer("a", TIMED_OUT)]
        assert session.free_window == 1
        session.submit_many(submissions("b"))
        await until(lambda: len(connection.of(SubmitSm)) == 2)
        assert connection.of(SubmitSm) == [2, 3]
        connection.send(2, pdus.SubmitSmResp(0, "late"))
        connection.send(2, pdus.SubmitSmResp(0, "twice"))
        await until(lambda: Answer("a", ANSWERED, 0, "late") in owner.answers)
        await until(lambda: Answer("b", TIMED_OUT) in owner.answers)
        assert len(owner.answers) == 3


async def test_what_came_while_the_process_stood_still_counts_although_timers_run_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def quiet(_connection: Connection, _sequence: int, pdu: Pdu) -> bool:
        return isinstance(pdu, SubmitSm | pdus.EnquireLink)

    async with scripted_smsc(quiet) as smsc, bound(smsc, enquire_link_seconds=3600.0) as (owner, session, connection):
        session.submit_many(submissions("a"))
        session._enquire_at = 0.0
        await until(lambda: connection.of(SubmitSm) and connection.of(pdus.EnquireLink))
        connection.send(connection.of(SubmitSm)[0], pdus.SubmitSmResp(0, "in time"))
        connection.send(connection.of(pdus.EnquireLink)[0], pdus.EnquireLinkResp())
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: time.monotonic() + 60.0)
        session._sweep()
        await until(lambda: owner.answers)
        assert owner.answers == [Answer("a", ANSWERED, 0, "in time")]
        assert session.bound


async def test_a_connection_lost_in_flight_is_told_for_every_open_token() -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, connection):
        session.submit_many(submissions("a", "b"))
        await until(lambda: len(connection.of(SubmitSm)) == 2)
        connection.transport.abort()
        reason = await session.wait_closed()
        assert owner.answers == [Answer("a", SESSION_CLOSED), Answer("b", SESSION_CLOSED)]
        assert "connection" in reason
        assert not session.bound
        assert session.submit_many(submissions("c")) == [
            Unsent("c", UnsentReason.NOT_BOUND, "the session is not bound")
        ]
        assert session._sweep_timer is not None and session._sweep_timer.cancelled(), "else it would tick for ever"


async def test_what_comes_when_the_connection_has_failed_already_is_unsent() -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, _):
        assert session._transport is not None
        session._transport.abort()  # as a write that fails does; the session hears of it later
        assert [unsent.reason for unsent in session.submit_many(submissions("a"))] == [UnsentReason.NOT_BOUND]
        await session.wait_closed()
        assert owner.answers == []


async def test_a_write_that_fails_counts_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_transport: object, _data: bytes) -> None:
        raise RuntimeError("a bug of the event loop")

    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, _):
        with monkeypatch.context() as patch:
            patch.setattr("asyncio.selector_events._SelectorSocketTransport.write", fail)
            assert session.submit_many(submissions("a")) == []
        assert await session.wait_closed() == "writing to the connection failed"
        assert owner.answers == [Answer("a", SESSION_CLOSED)]


async def test_answers_that_came_before_the_end_count() -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, connection):
        session.submit_many(submissions("a", "b"))
        await until(lambda: len(connection.of(SubmitSm)) == 2)
        connection.send(2, pdus.SubmitSmResp(0, "x"))
        connection.transport.close()
        assert await session.wait_closed() == "the provider closed the connection"
        assert owner.answers == [Answer("a", ANSWERED, 0, "x"), Answer("b", SESSION_CLOSED)]


async def test_garbage_ends_the_session_with_its_reason() -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, connection):
        session.submit_many(submissions("a"))
        await until(lambda: connection.of(SubmitSm))
        connection.transport.write(pdus.SubmitSmResp(0, "x").encode(2) + b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert "no SMPP: command_length 1213486160" in await session.wait_closed()
        assert owner.answers == [Answer("a", ANSWERED, 0, "x")]
        await until(lambda: connection.lost)
        assert connection.received[-1] == (0, pdus.GenericNack(CommandStatus.ESME_RINVCMDLEN))


# Is anybody there?


async def test_enquire_link_is_asked_and_answered() -> None:
    async with scripted_smsc() as smsc, bound(smsc, enquire_link_seconds=0.05) as (_, session, connection):
        await until(lambda: len(connection.of(pdus.EnquireLink)) >= 3)
        connection.send(77, pdus.EnquireLink())
        await until(lambda: connection.of(pdus.EnquireLinkResp) == [77])
        assert session.bound


async def test_before_the_bind_is_answered_nothing_else_is_asked() -> None:
    asked: list[Pdu] = []

    def late(connection: Connection, sequence: int, pdu: Pdu) -> bool:
        def answer() -> None:
            asked.extend(pdu for _, pdu in connection.received)
            connection.answer(sequence, pdu)

        if isinstance(pdu, pdus.Bind):
            asyncio.get_running_loop().call_later(0.1, answer)
        return isinstance(pdu, pdus.Bind)

    async with scripted_smsc(late) as smsc, bound(smsc, enquire_link_seconds=0.02) as (_, _session, connection):
        await until(lambda: connection.of(pdus.EnquireLink))
    assert [type(pdu) for pdu in asked] == [pdus.Bind]


async def test_an_enquire_link_unanswered_for_as_long_as_any_request_may_be_ends_the_session() -> None:
    changes = {"enquire_link_seconds": 3600.0, "response_timeout_seconds": 0.1}

    def deaf(_connection: Connection, _sequence: int, pdu: Pdu) -> bool:
        return isinstance(pdu, pdus.EnquireLink)

    async with scripted_smsc(deaf) as smsc, bound(smsc, **changes) as (_, session, connection):
        session._enquire_at = 0.0
        async with asyncio.timeout(WITHIN_SECONDS):
            assert await session.wait_closed() == "the provider left an enquire_link unanswered"
        await until(lambda: connection.lost)
        assert len(connection.of(pdus.EnquireLink)) == 1
