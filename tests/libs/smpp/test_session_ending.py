"""The end of a session, by whichever side and for whatever reason: what is open is waited for, and told."""

import asyncio

import pytest

from libs.smpp import pdus
from libs.smpp import session as session_module
from libs.smpp.connect import open_session
from libs.smpp.pdus import DeliverSm, Pdu, SubmitSm
from libs.smpp.status import CommandStatus
from libs.smpp.submission import Answer, UnsentReason
from tests.libs.smpp.scripted_smsc import Connection, plainly, scripted_smsc
from tests.libs.smpp.session_owner import ANSWERED, SESSION_CLOSED, Owner, bound, deliver, silent, submissions
from tests.waiting import until


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


async def test_unbinding_waits_for_open_answers_and_answers_enquiries_meanwhile() -> None:
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


@pytest.mark.parametrize(
    ("sequence", "earlier"),
    [
        pytest.param(2, pdus.GenericNack(CommandStatus.ESME_RTHROTTLED), id="of a submit"),
        pytest.param(0, pdus.UnbindResp(), id="without a number"),
    ],
)
async def test_an_unbind_waits_for_its_own_answer(sequence: int, earlier: Pdu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_UNBIND_SECONDS", 60.0)

    def slow(_connection: Connection, _sequence: int, pdu: Pdu) -> bool:
        return isinstance(pdu, SubmitSm | pdus.Unbind)

    async with scripted_smsc(slow) as smsc, bound(smsc) as (_, session, connection):
        session.submit_many(submissions("a"))
        await until(lambda: connection.of(SubmitSm))
        connection.send(sequence, earlier)
        connection.send(50, pdus.EnquireLink())
        await until(lambda: connection.of(pdus.EnquireLinkResp) == [50])
        unbinding = asyncio.create_task(session.unbind(drain_seconds=0.0))
        await until(lambda: connection.of(pdus.Unbind))
        connection.send(51, pdus.EnquireLink())
        await until(lambda: connection.lost or connection.of(pdus.EnquireLinkResp) == [50, 51])
        assert not connection.lost
        connection.send(connection.of(pdus.Unbind)[0], pdus.UnbindResp())
        await unbinding


async def test_a_provider_that_reads_no_more_and_closes_its_side_is_unbound_from_and_left() -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc, window=1_000_000) as (owner, session, connection):
        connection.transport.pause_reading()
        written = 0
        while session.free_window:  # until bytes are left over that nobody takes
            session.submit_many(submissions(*range(written, written + 1000)))
            written += 1000
            await asyncio.sleep(0)
        assert session.bound and written < 1_000_000, "it went on although nobody reads"
        connection.transport.write_eof()
        await until(lambda: session.close_reason)
        assert not session.bound
        await asyncio.wait_for(session.unbind(drain_seconds=0.0), 20.0)
        assert len(owner.answers) == written and set(owner.kinds.values()) == {SESSION_CLOSED}


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
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, connection):
        session.submit_many(submissions("a", "b"))
        await until(lambda: len(connection.of(SubmitSm)) == 2)
        connection.send(2, pdus.SubmitSmResp(CommandStatus.ESME_RINVBNDSTS, ""))
        await until(lambda: session.free_window == 0)
        connection.send(50, pdus.EnquireLink())
        await until(lambda: connection.lost or connection.of(pdus.EnquireLinkResp))
        assert not connection.of(pdus.Unbind)
        connection.send(3, pdus.SubmitSmResp(CommandStatus.ESME_RINVBNDSTS, ""))
        assert "ESME_RINVBNDSTS" in await session.wait_closed()
        assert owner.kinds == {"a": ANSWERED, "b": ANSWERED}, "each has its answer"
        assert len(connection.of(pdus.Unbind)) == 1


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


async def test_a_raising_answer_handler_harms_nothing() -> None:
    told: list[Answer] = []

    def raising(answers: list[Answer]) -> None:
        told.extend(answers)
        raise RuntimeError("a bug")

    async with scripted_smsc(plainly) as smsc:
        session = await open_session(smsc.config(), raising, Owner().on_deliver)
        session.submit_many(submissions("a"))
        await until(lambda: len(told) == 1)
        session.submit_many(submissions("b"))
        await until(lambda: len(told) == 2)
        assert session.bound
        await session.unbind(1.0)
