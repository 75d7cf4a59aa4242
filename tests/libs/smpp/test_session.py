"""The session against a scripted SMSC: every way in which a submit, a deliver or the bind itself can come out."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from libs.smpp import pdus
from libs.smpp import session as session_module
from libs.smpp.config import SessionConfig
from libs.smpp.connect import open_session
from libs.smpp.delivers import Deliver
from libs.smpp.errors import BindError
from libs.smpp.pdus import BindType, DeliverSm, Pdu, SubmitSm
from libs.smpp.session import Session
from libs.smpp.status import CommandStatus
from libs.smpp.submission import Answer, AnswerKind, Submission, Unsent, UnsentReason
from tests.libs.smpp.scripted_smsc import Connection, ScriptedSmsc, plainly, scripted_smsc, until

ANSWERED, TIMED_OUT, SESSION_CLOSED = AnswerKind.ANSWERED, AnswerKind.TIMED_OUT, AnswerKind.SESSION_CLOSED


def submissions(*tokens: object) -> list[Submission]:
    return [Submission(token, SubmitSm("Postrider", "254711000001", b"Hello")) for token in tokens]


def silent(_connection: Connection, _sequence: int, pdu: Pdu) -> bool:
    """The script that leaves submits unanswered."""
    return isinstance(pdu, SubmitSm)


class Owner:
    """Who holds a session: keeps what it is told."""

    def __init__(self) -> None:
        self.session: Session
        self.batches: list[list[Answer]] = []
        self.delivered: list[list[Deliver]] = []
        self.may_deliver = asyncio.Event()
        self.may_deliver.set()
        self.deliver_error: Exception | None = None

    @property
    def answers(self) -> list[Answer]:
        return [answer for batch in self.batches for answer in batch]

    @property
    def kinds(self) -> dict[object, AnswerKind]:
        return {answer.token: answer.kind for answer in self.answers}

    def on_answers(self, answers: list[Answer]) -> None:
        self.batches.append(answers)

    async def on_deliver(self, delivers: list[Deliver]) -> None:
        self.delivered.append(delivers)
        await self.may_deliver.wait()
        if self.deliver_error is not None:
            raise self.deliver_error

    async def open(self, config: SessionConfig) -> Session:
        self.session = await open_session(config, self.on_answers, self.on_deliver)
        return self.session


@asynccontextmanager
async def bound(smsc: ScriptedSmsc, **changes: Any) -> AsyncIterator[tuple[Owner, Session, Connection]]:
    """A bound session and the SMSC's side of it."""
    owner = Owner()
    session = await owner.open(smsc.config(**changes))
    try:
        yield owner, session, smsc.connections[-1]
    finally:
        session.end("the test is over", cut=True)
        await session.wait_closed()


# Binding.


@pytest.mark.parametrize("bind_type", list(BindType))
async def test_a_bind_says_who_we_are(bind_type: BindType) -> None:
    async with scripted_smsc() as smsc:
        changes = {"bind_type": bind_type, "system_type": "VMA", "addr_ton": 1, "addr_npi": 1, "address_range": "^2547"}
        async with bound(smsc, **changes) as (_, session, connection):
            expected = pdus.Bind(bind_type, "client", "secret", "VMA", 0x34, 1, 1, "^2547")
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


async def test_a_bind_without_an_answer_ends_in_time() -> None:
    async with scripted_smsc(lambda *_: True) as smsc:
        with pytest.raises(BindError, match="no answer to the bind within") as raised:
            await Owner().open(smsc.config(bind_timeout_seconds=0.1))
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


# Submitting.


async def test_submits_leave_in_order_and_their_answers_come_in_batches() -> None:
    async with scripted_smsc() as smsc, bound(smsc) as (owner, session, connection):
        assert session.submit_many(submissions("a", "b", "c")) == []
        assert session.in_flight == 3
        await until(lambda: len(owner.answers) == 3)
        assert owner.answers == [Answer(token, ANSWERED, 0, f"id-{n}") for token, n in (("a", 2), ("b", 3), ("c", 4))]
        assert len(owner.batches) == 1
        assert connection.of(SubmitSm) == [2, 3, 4]
        assert (session.in_flight, session.free_window) == (0, 10)


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
        assert (session.in_flight, session.free_window) == (0, 1)
        session.submit_many(submissions("b"))
        await until(lambda: len(connection.of(SubmitSm)) == 2)
        assert connection.of(SubmitSm) == [2, 3]
        connection.send(2, pdus.SubmitSmResp(0, "late"))
        connection.send(2, pdus.SubmitSmResp(0, "twice"))
        await until(lambda: Answer("a", ANSWERED, 0, "late") in owner.answers)
        await until(lambda: Answer("b", TIMED_OUT) in owner.answers)
        assert len(owner.answers) == 3


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


async def test_an_unanswered_enquire_link_ends_the_session() -> None:
    changes = {"enquire_link_seconds": 0.05, "response_timeout_seconds": 0.1}

    def deaf(_connection: Connection, _sequence: int, pdu: Pdu) -> bool:
        return isinstance(pdu, pdus.EnquireLink)

    async with scripted_smsc(deaf) as smsc, bound(smsc, **changes) as (_, session, connection):
        assert await session.wait_closed() == "the provider left an enquire_link unanswered"
        await until(lambda: connection.lost)
        assert len(connection.of(pdus.EnquireLink)) == 1


# Delivering.


def deliver(number: int) -> DeliverSm:
    return DeliverSm("254711000001", "Postrider", str(number).encode())


async def test_delivers_are_answered_after_their_handler_in_order_and_hold_up_no_response() -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, connection):
        owner.may_deliver.clear()
        session.submit_many(submissions("a"))
        for number in range(3):
            connection.send(100 + number, deliver(number))
        await until(lambda: owner.delivered)
        connection.send(2, pdus.SubmitSmResp(0, "x"))
        await until(lambda: owner.kinds == {"a": ANSWERED})
        assert connection.statuses(pdus.DeliverSmResp) == []
        owner.may_deliver.set()
        await until(lambda: len(connection.statuses(pdus.DeliverSmResp)) == 3)
        assert connection.statuses(pdus.DeliverSmResp) == [(100, 0), (101, 0), (102, 0)]
        assert [pdu for batch in owner.delivered for pdu in batch] == [deliver(n) for n in range(3)]


async def test_a_failing_handler_makes_the_smsc_send_again() -> None:
    async with scripted_smsc() as smsc, bound(smsc) as (owner, session, connection):
        owner.deliver_error = RuntimeError("Kafka is away")
        connection.send(100, deliver(0))
        connection.send(101, pdus.DataSm("254711000001", "Postrider"))
        await until(lambda: connection.statuses(pdus.DeliverSmResp) and connection.statuses(pdus.DataSmResp))
        assert connection.statuses(pdus.DeliverSmResp) == [(100, CommandStatus.ESME_RX_T_APPN)]
        assert connection.statuses(pdus.DataSmResp) == [(101, CommandStatus.ESME_RX_T_APPN)]
        owner.deliver_error = None
        connection.send(102, deliver(0))
        await until(lambda: (102, 0) in connection.statuses(pdus.DeliverSmResp))
        assert session.deliver_errors >= 1


async def test_a_flood_of_delivers_is_bounded_and_the_surplus_comes_again() -> None:
    changes = {"max_waiting_delivers": 2, "deliver_batch": 1}
    async with scripted_smsc() as smsc, bound(smsc, **changes) as (owner, _, connection):
        owner.may_deliver.clear()
        connection.send(100, deliver(0))
        await until(lambda: owner.delivered)
        for number in range(1, 5):
            connection.send(100 + number, deliver(number))
        await until(lambda: len(connection.statuses(pdus.DeliverSmResp)) == 2)
        temporary = CommandStatus.ESME_RX_T_APPN
        assert connection.statuses(pdus.DeliverSmResp) == [(103, temporary), (104, temporary)]
        owner.may_deliver.set()
        await until(lambda: len(connection.statuses(pdus.DeliverSmResp)) == 5)
        assert connection.statuses(pdus.DeliverSmResp)[2:] == [(100, 0), (101, 0), (102, 0)]
        assert all(len(batch) == 1 for batch in owner.delivered)


async def test_requests_that_cannot_be_read_are_refused_and_the_session_goes_on() -> None:
    async with scripted_smsc() as smsc, bound(smsc) as (owner, session, connection):
        connection.transport.write(struct.pack(">IIII", 20, 5, 0, 31) + b"\0\0\0x")
        connection.transport.write(struct.pack(">IIII", 16, 0x102, 0, 32))
        connection.send(33, SubmitSm("1", "2"))
        await until(lambda: len(connection.of(pdus.GenericNack)) == 2)
        assert connection.statuses(pdus.DeliverSmResp) == [(31, CommandStatus.ESME_RINVCMDLEN)]
        assert connection.of(pdus.GenericNack) == [32, 33]
        assert session.bound
        assert owner.delivered == []


async def test_a_deliver_before_the_bind_is_refused() -> None:
    def hasty(connection: Connection, sequence: int, pdu: Pdu) -> bool:
        if isinstance(pdu, pdus.Bind):
            connection.send(100, deliver(0))
            connection.send(sequence, pdus.BindResp(pdu.bind_type))
            connection.send(101, deliver(1))
        return isinstance(pdu, pdus.Bind)

    async with scripted_smsc(hasty) as smsc, bound(smsc) as (owner, _, connection):
        await until(lambda: len(connection.statuses(pdus.DeliverSmResp)) == 2)
        assert connection.statuses(pdus.DeliverSmResp) == [(100, CommandStatus.ESME_RINVBNDSTS), (101, 0)]
        assert owner.delivered == [[deliver(1)]]


# Ending.


async def test_when_the_provider_unbinds_open_answers_and_delivers_are_waited_for_and_nothing_more_is_submitted() -> (
    None
):
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, connection):
        owner.may_deliver.clear()
        session.submit_many(submissions("open"))
        await until(lambda: connection.of(SubmitSm))
        connection.send(7, DeliverSm("254711000001", "2020", b"Hi"))
        await until(lambda: owner.delivered)
        connection.send(8, pdus.Unbind())
        await until(lambda: session.free_window == 0)
        assert [u.reason for u in session.submit_many(submissions("more"))] == [UnsentReason.NOT_BOUND]
        connection.send(connection.of(SubmitSm)[0], pdus.SubmitSmResp(0, "id"))
        await until(lambda: owner.kinds == {"open": ANSWERED})
        assert not connection.of(pdus.UnbindResp)
        owner.may_deliver.set()
        await asyncio.wait_for(session.wait_closed(), 5.0)
        await until(lambda: connection.lost)
        assert connection.statuses(pdus.DeliverSmResp) == [(7, 0)] and connection.of(pdus.UnbindResp) == [8]


async def test_when_the_provider_unbinds_answers_are_waited_for_no_longer_than_any() -> None:
    async with (
        scripted_smsc(silent) as smsc,
        bound(smsc, response_timeout_seconds=0.1) as (owner, session, connection),
    ):
        session.submit_many(submissions("open"))
        await until(lambda: connection.of(SubmitSm))
        connection.send(8, pdus.Unbind())
        assert await asyncio.wait_for(session.wait_closed(), 5.0) == "the provider unbound"
        await until(lambda: connection.of(pdus.UnbindResp) == [8])
        assert set(owner.kinds) == {"open"} and owner.kinds["open"] is not ANSWERED


async def test_unbinding_waits_for_open_answers() -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, connection):
        session.submit_many(submissions("a"))
        await until(lambda: connection.of(SubmitSm))
        unbinding = asyncio.create_task(session.unbind(drain_seconds=5.0))
        await until(lambda: session.free_window == 0)
        connection.send(50, pdus.EnquireLink())
        await until(lambda: connection.of(pdus.EnquireLinkResp))
        assert not connection.of(pdus.Unbind)
        connection.send(2, pdus.SubmitSmResp(0, "x"))
        await unbinding
        assert owner.answers == [Answer("a", ANSWERED, 0, "x")]


async def test_unbinding_waits_for_open_answers_and_delivers() -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, connection):
        owner.may_deliver.clear()
        session.submit_many(submissions("a"))
        connection.send(100, deliver(0))
        await until(lambda: connection.of(SubmitSm) and owner.delivered)
        unbinding = asyncio.create_task(session.unbind(drain_seconds=5.0))
        await until(lambda: session.free_window == 0)
        assert session.submit_many(submissions("b"))[0].reason is UnsentReason.NOT_BOUND
        connection.send(2, pdus.SubmitSmResp(0, "x"))
        await until(lambda: owner.kinds == {"a": ANSWERED})
        assert not connection.of(pdus.Unbind)
        owner.may_deliver.set()
        await unbinding
        assert connection.statuses(pdus.DeliverSmResp) == [(100, 0)]
        assert connection.of(pdus.Unbind)
        assert session.close_reason == "unbound by us"
        assert owner.answers == [Answer("a", ANSWERED, 0, "x")]


async def test_unbinding_gives_up_waiting_when_its_time_is_over_and_tells_what_was_open() -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, connection):
        owner.may_deliver.clear()
        session.submit_many(submissions("a"))
        connection.send(100, deliver(0))
        await until(lambda: connection.of(SubmitSm) and owner.delivered)
        await session.unbind(drain_seconds=0.05)
        assert owner.answers == [Answer("a", SESSION_CLOSED)]
        assert connection.of(pdus.Unbind)


async def test_unbinding_ends_although_the_provider_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_UNBIND_SECONDS", 0.05)

    def sulky(_connection: Connection, _sequence: int, pdu: Pdu) -> bool:
        return isinstance(pdu, pdus.Unbind)

    async with scripted_smsc(sulky) as smsc, bound(smsc) as (_, session, connection):
        await asyncio.wait_for(session.unbind(drain_seconds=0.0), 5.0)
        await until(lambda: connection.lost)


async def test_a_connection_lost_while_draining_ends_the_waiting() -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, connection):
        session.submit_many(submissions("a"))
        await until(lambda: connection.of(SubmitSm))
        unbinding = asyncio.create_task(session.unbind(drain_seconds=60.0))
        await until(lambda: session.free_window == 0)
        connection.transport.abort()
        await asyncio.wait_for(unbinding, 5.0)
        assert owner.answers == [Answer("a", SESSION_CLOSED)]


async def test_a_session_out_of_sequence_numbers_unbinds_instead_of_reusing_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_module, "_MAX_SEQUENCE", 1_014)
    async with scripted_smsc() as smsc, bound(smsc) as (owner, session, connection):
        assert session.submit_many(submissions("a", "b", "c")) == []
        assert session.submit_many(submissions("d"))[0].reason is UnsentReason.NOT_BOUND
        await session.wait_closed()
        assert owner.kinds == {"a": ANSWERED, "b": ANSWERED, "c": ANSWERED}
        assert connection.of(pdus.Unbind)


async def test_a_provider_that_has_lost_the_bind_is_left_in_good_order() -> None:
    def unbound(connection: Connection, sequence: int, pdu: Pdu) -> bool:
        if isinstance(pdu, SubmitSm):
            connection.send(sequence, pdus.SubmitSmResp(CommandStatus.ESME_RINVBNDSTS, ""))
        return isinstance(pdu, SubmitSm)

    async with scripted_smsc(unbound) as smsc, bound(smsc) as (owner, session, connection):
        session.submit_many(submissions("a", "b"))
        assert "ESME_RINVBNDSTS" in await session.wait_closed()
        assert owner.kinds == {"a": ANSWERED, "b": ANSWERED}, "each has its answer"
        assert connection.of(pdus.Unbind)


@pytest.mark.parametrize("kind", [pdus.EnquireLinkResp, pdus.GenericNack])
async def test_an_enquire_link_answered_from_no_bind_ends_the_session(
    kind: type[pdus.EnquireLinkResp] | type[pdus.GenericNack],
) -> None:
    def lost(connection: Connection, sequence: int, pdu: Pdu) -> bool:
        if isinstance(pdu, pdus.EnquireLink):
            connection.send(sequence, kind(CommandStatus.ESME_RINVBNDSTS))
        return isinstance(pdu, pdus.EnquireLink)

    async with scripted_smsc(lost) as smsc, bound(smsc, enquire_link_seconds=0.05) as (_, session, _connection):
        assert "ESME_RINVBNDSTS" in await session.wait_closed()


async def test_a_raising_answer_handler_is_counted_and_harms_nothing() -> None:
    def raising(_answers: list[Answer]) -> None:
        raise RuntimeError("a bug")

    async with scripted_smsc(plainly) as smsc:
        session = await open_session(smsc.config(), raising, Owner().on_deliver)
        session.submit_many(submissions("a"))
        await until(lambda: session.callback_errors == 1)
        session.submit_many(submissions("b"))
        await until(lambda: session.callback_errors == 2)
        assert session.bound
        await session.unbind(1.0)
