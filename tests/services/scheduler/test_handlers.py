import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from libs.bus.errors import BadRecord, PublishFailed
from libs.contracts.events import CommandKind, Leg, Priority
from libs.contracts.statuses import Status
from services.scheduler import store
from services.scheduler.handlers import arrival
from tests.services.scheduler.builders import NOW, TRACE, command, deferred, new_message_id
from tests.services.scheduler.conftest import World

TOMORROW = NOW + timedelta(days=1)


async def test_a_cancelled_message_ends_as_cancelled_in_the_leg_that_it_waited_for(world: World) -> None:
    event = deferred(TOMORROW)
    await world.take(event)
    await world.take(command(event.subject))
    [ended] = world.ended()
    assert (ended.subject, ended.time, ended.traceparent) == (event.subject, NOW, TRACE)
    assert (ended.data.status, ended.data.part, ended.data.leg) == (Status.CANCELLED, 0, Leg(1, 2, TOMORROW))
    assert (ended.data.observed_at, ended.data.recipient) == (NOW, event.data.message.recipient)
    world.now = TOMORROW
    assert await world.leaving().once() == 0


async def test_a_cancellation_may_come_before_what_it_cancels(world: World) -> None:
    event = deferred(TOMORROW)
    await world.take(command(event.subject))
    assert world.ended() == []
    await world.take(event)
    assert [e.data.status for e in world.ended()] == [Status.CANCELLED]


async def test_or_with_it(world: World) -> None:
    event = deferred(TOMORROW)
    await world.take(command(event.subject), event)
    assert [e.data.status for e in world.ended()] == [Status.CANCELLED]


async def test_or_with_what_comes_to_wait_after_it(world: World) -> None:
    event = deferred(TOMORROW)
    await world.take(event)
    await world.take(command(event.subject), deferred(TOMORROW))
    assert [(e.subject, e.data.status) for e in world.ended()] == [(event.subject, Status.CANCELLED)]


@pytest.mark.parametrize("order", sorted(set(permutations("hhnn"))), ids="".join)
async def test_or_at_once_in_another_lane_in_whatever_order_the_steps_of_both_are_done(
    world: World, monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]
) -> None:
    """The arrival is stored, and looked for a mark, in the high lane; the mark is stored, and looked for an arrival, in the normal one."""
    left = list(order)

    def in_turn(step: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def taken(*given: object) -> object:
            lane = asyncio.current_task()
            while lane is not None and left[0] != lane.get_name():
                await asyncio.sleep(0)
            done = await step(*given)
            left.pop(0)
            return done

        return taken

    for step in ("add", "mark", "cancel_marked"):
        monkeypatch.setattr(store, step, in_turn(getattr(store, step)))
    event = deferred(TOMORROW, priority=Priority.HIGH)
    lanes = (
        asyncio.create_task(world.take(event), name="h"),
        asyncio.create_task(world.take(command(event.subject)), name="n"),
    )
    async with asyncio.timeout(10):
        await asyncio.gather(*lanes)
    assert left == []
    assert {(e.subject, e.data.status) for e in world.ended()} == {(event.subject, Status.CANCELLED)}
    world.now = TOMORROW
    assert await world.leaving().once() == 0


async def test_it_is_said_again_to_the_byte_when_the_batch_comes_again(world: World) -> None:
    event = deferred(TOMORROW)
    await world.take(event)
    world.bus.available = False
    with pytest.raises(PublishFailed):
        await world.take(command(event.subject))
    world.bus.available = True
    for later in range(2):
        world.now = NOW + timedelta(minutes=later)
        await world.take(command(event.subject))
    first, second = world.ended()
    assert first == second
    assert first.data.observed_at == NOW


async def test_other_commands_other_cycles_and_other_messages_are_let_be(world: World) -> None:
    event, other = deferred(TOMORROW), deferred(TOMORROW)
    await world.take(event, other)
    await world.take(
        command(event.subject, CommandKind.RETURN), command(event.subject, cycle=2), command(new_message_id())
    )
    assert world.ended() == []
    world.now = TOMORROW
    assert await world.leaving().once() == 2


async def test_what_is_leaving_is_not_cancelled(world: World) -> None:
    event = deferred()
    await world.take(event)
    world.bus.available = False
    with pytest.raises(PublishFailed):
        await world.leaving().once()
    await world.take(command(event.subject))
    world.bus.available = True
    assert world.ended() == []
    world.now += timedelta(seconds=11)
    assert await world.leaving().once() == 1
    assert [e.subject for e in world.returned()] == [event.subject]
    await world.take(command(event.subject))
    assert world.ended() == [], "nor what has left"


async def test_a_deferral_that_comes_again_changes_nothing(world: World) -> None:
    event = deferred()
    await world.take(event, event)
    assert await world.leaving().once() == 1
    await world.take(event)
    assert await world.leaving().once() == 0


async def test_nothing_personal_is_kept_of_what_is_done(world: World) -> None:
    gone, cancelled = deferred(), deferred(TOMORROW)
    await world.take(gone, cancelled, command(cancelled.subject))
    await world.leaving().once()
    await world.take(gone, cancelled)
    rows = await world.pool.fetch("SELECT outcome FROM entries ORDER BY outcome")
    assert [row["outcome"] for row in rows] == ["cancelled", "returned"]
    assert await world.pool.fetchval("SELECT count(*) FROM events") == 0


def test_a_leg_of_another_time_than_that_at_which_it_is_due_is_refused() -> None:
    event = deferred()
    object.__setattr__(event.data, "due_at", TOMORROW)
    with pytest.raises(BadRecord, match="leg_at"):
        arrival(event)


async def test_whoever_sleeps_is_told_of_the_first_that_is_due(world: World) -> None:
    await world.take(deferred(TOMORROW), deferred(NOW), deferred(TOMORROW))
    assert world.told == [NOW]
