"""What may have been taken, with real Kafka, Postgres and a carrier: it is told, and never sent again unnoticed."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from libs.contracts.events import SmsDispatch
from libs.contracts.statuses import Status
from libs.contracts.without_receipt import NOT_ASKED
from libs.service_kit import metrics
from services.dispatcher.attempts import Attempt, LegState, Outcome
from services.dispatcher.lease import Lease
from services.dispatcher.ledger import Ask, Claim, Ledger
from services.dispatcher.publications import events_of
from tests.services.dispatcher.world import MakeWorld, all_told, counted


async def test_silence_is_doubt_and_doubt_is_not_sent_again(world: MakeWorld):
    async with world(response_timeout_seconds=1) as w:
        await w.carrier.behave(silence={"next": 1})
        w.start()
        event = w.event()
        await w.send(event)
        await w.until(all_told(w, [event], Status.IN_DOUBT))
        await w.send(event)
        await w.until(lambda: w.words(event.subject).count("in_doubt") >= 2)
        assert len(await w.carrier.accepted()) == 1


async def test_a_late_answer_resolves_the_doubt(world: MakeWorld):
    async with world(response_timeout_seconds=1) as w:
        await w.carrier.behave(responses={"delay_ms": 2500})
        w.start()
        event = w.event()
        await w.send(event)
        await w.until(all_told(w, [event], Status.SUBMITTED))
        assert w.words(event.subject) == ["in_doubt", "submitted"]
        assert counted(metrics.SETTLED, w, "doubt") == 1
        assert counted(metrics.LATE_ANSWERS, w, "accepted") == 1
        async with asyncio.timeout(20):
            while await w.pool.fetchval("SELECT count(*) FROM late_events"):
                await asyncio.sleep(0.05)


async def test_a_late_answer_resolves_the_doubt_of_what_has_no_receipt(world: MakeWorld):
    async with world(response_timeout_seconds=1, receipts="none") as w:
        await w.carrier.behave(responses={"delay_ms": 2500})
        w.start()
        event = w.event()
        await w.send(event)
        await w.until(all_told(w, [event], Status.SUBMITTED))
        assert [s.reason and s.reason.code for s in w.statuses[event.subject]] == ["smpp.timed_out", NOT_ASKED.code]


@pytest.mark.parametrize(("command_status", "leg"), [(0x45, 1), (0x58, 10)])
async def test_late_proof_of_non_acceptance_opens_the_next_leg(world: MakeWorld, command_status: int, leg: int):
    async with world(response_timeout_seconds=1) as w:
        await w.carrier.behave(responses={"delay_ms": 2500}, refusals={"next": 1, "command_status": command_status})
        w.start()
        event = w.event(leg=leg)
        await w.send(event)
        await w.until(lambda: event.subject in w.returned)
        back = w.returned[event.subject]
        assert (back.leg.leg, back.refused_part, back.refused_try) == (leg + 1, 1, 1)
        assert back.message == event.data.message


@pytest.mark.parametrize("first_leg", [1, 2])
async def test_resend_once_opens_one_more_leg_and_only_one(world: MakeWorld, first_leg: int):
    async with world(in_doubt="resend_once", response_timeout_seconds=1) as w:
        await w.carrier.behave(silence={"next": 2})
        w.start()
        event = w.event(leg=first_leg)
        if first_leg == 2:  # the first only waited for the message's time
            event = replace(event, data=at_its_time(event.data))
        await w.send(event)
        await w.until(lambda: event.subject in w.returned and "in_doubt" in w.words(event.subject))
        assert w.returned[event.subject].leg.leg == first_leg + 1
        w.returned.clear()
        w.statuses.clear()
        second = w.event(message_id=event.subject, leg=first_leg + 1)
        await w.send(second)
        await w.until(all_told(w, [second], Status.IN_DOUBT))
        assert event.subject not in w.returned


def at_its_time(data: SmsDispatch) -> SmsDispatch:
    return replace(data, message=replace(data.message, scheduled_at=data.leg.leg_at))


async def test_what_a_dead_peer_left_without_an_outcome_is_doubt_and_counted_by_segments(world: MakeWorld):
    async with world() as w:
        peer = Lease(w.pool, w.gateway.id, 5)
        await peer.register()
        event = w.event("x" * 400)
        asks = [Ask(LegState(event), part, 1) for part in (1, 2, 3)]
        await Ledger(w.pool, w.gateway.id, peer.instance, 0).claim(Claim(1, asks, 0.0, 0.0), 0.0)
        await peer.release()
        w.start()
        await w.send(event)
        await w.until(lambda: w.words(event.subject).count("in_doubt") == 3)
        assert counted(metrics.SETTLED, w, "doubt_by_peer") == 3
        assert await w.carrier.accepted() == []


async def test_what_a_dead_peer_stored_of_a_late_answer_and_did_not_tell_is_told(world: MakeWorld):
    async with world() as w:
        event = w.event()
        (late,) = events_of(LegState(event), Attempt(1, 1, uuid4(), Outcome.ACCEPTED, observed_at=event.time), False)
        kept = "INSERT INTO late_events (gateway, owner, topic, key, value) VALUES ($1, $2, $3, $4, $5)"
        await w.pool.execute(kept, w.gateway.id, uuid4(), late.topic, late.key, late.value)
        w.start()
        await w.until(lambda: w.words(event.subject) == ["submitted"])


async def test_a_dropped_connection_leaves_doubt_and_the_link_comes_back(world: MakeWorld):
    async with world() as w:
        await w.carrier.behave(silence={"next": 1})
        w.start()
        doubtful, next_one = w.event("doubtful"), w.event("next")
        await w.send(doubtful)
        async with asyncio.timeout(20):
            while not await w.carrier.accepted():
                await asyncio.sleep(0.05)
        await w.carrier.act("drop-sessions")
        await w.send(next_one)
        await w.until(lambda: "in_doubt" in w.words(doubtful.subject) and "submitted" in w.words(next_one.subject))
        assert len(await w.carrier.accepted()) == 2
