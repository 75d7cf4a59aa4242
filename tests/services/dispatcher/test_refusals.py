"""What a carrier refuses, with real Kafka, Postgres and a carrier: for good, for now, or because it comes too fast."""

import pytest

from libs.contracts.events import MessageEvent, Priority, SmsDeferred, SmsDispatch
from libs.contracts.statuses import Status
from services.dispatcher.breaker import OPENS_AT
from tests.services.dispatcher.world import MakeWorld, World, all_told


async def test_a_permanent_refusal_fails_with_code_and_words(world: MakeWorld):
    async with world() as w:
        await w.carrier.behave(refusals={"next": 1, "command_status": 0x0B})
        w.start()
        event = w.event()
        await w.send(event)
        await w.until(all_told(w, [event], Status.FAILED))
        reason = w.statuses[event.subject][0].reason
        assert reason is not None and reason.code == "smpp.ESME_RINVDSTADR" and "invalid" in reason.words


async def test_a_throttled_message_waits_and_is_sent_in_place(world: MakeWorld):
    async with world() as w:
        await w.carrier.behave(refusals={"next": 3, "command_status": 0x58})
        w.start()
        events = [w.event(f"{n}") for n in range(10)]
        await w.send(*events)
        await w.until(all_told(w, events, Status.SUBMITTED))
        assert len(await w.carrier.accepted()) == 10


async def test_what_is_refused_once_the_gateway_is_at_fault_is_not_deferred_and_is_sent_in_place(world: MakeWorld):
    async with world(window=50) as w:
        await w.carrier.behave(refusals={"next": OPENS_AT + 2, "command_status": 0x45})
        w.start()
        events = [w.event(f"{n}") for n in range(OPENS_AT + 10)]
        await w.send(*events)
        await w.until(lambda: all(e.subject in w.deferred or w.words(e.subject) for e in events))
        assert len(w.deferred) == OPENS_AT - 1
        assert len(await w.carrier.accepted()) == 11


async def deferred(w: World, event: MessageEvent[SmsDispatch]) -> SmsDeferred:
    """Sends what the carrier refuses for now: it is deferred to a leg of its own, told the same again, and nothing else is told."""
    await w.send(event)
    await w.until(lambda: event.subject in w.deferred)
    first = w.deferred.pop(event.subject)
    assert (first.leg.leg, first.leg.leg_at) == (2, first.due_at)
    assert 20 < (first.due_at - first.deferred_at).total_seconds() < 40
    assert first.reason is not None and first.reason.code == "smpp.ESME_RSUBMITFAIL"
    await w.send(event)
    await w.until(lambda: event.subject in w.deferred)
    assert w.deferred[event.subject] == first
    assert await w.carrier.accepted() == [] and w.words(event.subject) == []
    return first


@pytest.mark.parametrize("priority", Priority)
async def test_a_message_refused_for_now_is_deferred_to_a_leg_of_its_own_and_told_the_same_again(
    world: MakeWorld, priority: Priority
):
    async with world() as w:
        await w.carrier.behave(refusals={"next": 1, "command_status": 0x45})
        w.start()
        first = await deferred(w, w.event(priority=priority))
        assert (first.refused_part, first.refused_try) == (1, 1)


async def test_a_message_refused_for_now_in_its_last_leg_fails(world: MakeWorld):
    async with world(tries=2) as w:
        await w.carrier.behave(refusals={"next": 2, "command_status": 0x45})
        w.start()
        last, too_short = w.event(leg=2), w.event(valid_seconds=15)
        await w.send(last, too_short)
        await w.until(all_told(w, [last, too_short], Status.FAILED))
        assert w.deferred == {}


async def test_a_part_refused_for_now_is_tried_again_in_place_when_others_are_accepted(world: MakeWorld):
    async with world(tries=2) as w:
        await w.carrier.behave(refusals={"next": 1, "command_status": 0x45})
        w.start()
        event = w.event("x" * 400)
        await w.send(event)
        await w.until(lambda: w.words(event.subject) == ["submitted"] * 3)
        assert sorted(s.try_number for s in w.statuses[event.subject]) == [1, 1, 2]
        assert w.deferred == {}


async def test_a_message_of_which_all_parts_are_refused_for_now_is_deferred_as_a_whole(world: MakeWorld):
    async with world() as w:
        await w.carrier.behave(refusals={"next": 3, "command_status": 0x45})
        w.start()
        first = await deferred(w, w.event("x" * 400))
        assert first.refused_try == 2  # the try that the deferral took the place of


async def test_parts_refused_for_now_in_the_last_leg_are_tried_again_in_place_and_then_fail(world: MakeWorld):
    async with world(tries=2) as w:
        await w.carrier.behave(refusals={"next": 6, "command_status": 0x45})
        w.start()
        event = w.event("y" * 400, leg=2)
        await w.send(event)
        await w.until(all_told(w, [event], Status.FAILED))
        assert w.deferred == {}
