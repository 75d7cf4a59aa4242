import asyncio
from datetime import timedelta
from random import Random

import pytest
from aiokafka.errors import KafkaConnectionError
from prometheus_client import REGISTRY

from libs.bus.errors import PublishFailed
from libs.contracts.events import Leg, Priority, Reason, event_id
from libs.contracts.statuses import Status
from libs.contracts.topics import DEFERRED, RETURNED, RETURNED_HIGH, returned
from services.scheduler import store
from services.scheduler.leaving import Leaving
from tests.services.scheduler.builders import NOW, TRACE, command, deferred
from tests.services.scheduler.conftest import World

LEASE = timedelta(seconds=10)


async def drain(leaving: Leaving) -> list[int]:
    """Batch by batch, until nothing is due."""
    batches: list[int] = []
    while batches[-1:] != [0]:
        batches.append(await leaving.once())
    return batches


async def test_what_is_due_is_returned_in_the_leg_that_the_deferral_opened(world: World) -> None:
    event = deferred(NOW, refused=(1, 3))
    await world.take(event)
    assert await world.leaving().once() == 1
    [back] = world.returned()
    assert back.id == event_id("postrider.sms.returned.v1", event.subject, 1, 2)
    assert (back.subject, back.time, back.traceparent, back.source) == (
        event.subject,
        NOW,
        TRACE,
        "postrider/scheduler",
    )
    assert (back.data.message, back.data.leg) == (event.data.message, Leg(1, 2, NOW))
    assert (back.data.refused_part, back.data.refused_try) == (1, 3)
    assert back.data.reason == Reason("due", "its time has come")
    [record] = world.bus.records("sms.returned")
    assert record.key == b"acme/client/17"


async def test_nothing_leaves_before_its_time(world: World) -> None:
    await world.take(deferred(NOW + timedelta(microseconds=1)))
    assert await world.leaving().once() == 0
    world.now += timedelta(microseconds=1)
    assert await world.leaving().once() == 1


async def test_it_leaves_in_the_order_in_which_it_is_due(world: World) -> None:
    events = [deferred(NOW - timedelta(seconds=n // 3)) for n in range(60)]
    expected = sorted(events, key=lambda e: (e.data.due_at, e.subject))
    mixed = Random(1).sample(events, len(events))
    await world.take(*mixed[:20])
    await world.take(*mixed[20:])
    assert await drain(world.leaving(rows_per_second=70)) == [7] * 8 + [4, 0]
    assert [e.subject for e in world.returned()] == [e.subject for e in expected]


async def test_high_priority_leaves_before_thousands_that_were_due_before_it(world: World) -> None:
    await world.take(*(deferred(NOW - timedelta(seconds=60)) for _ in range(2_000)))
    urgent = [deferred(NOW - timedelta(seconds=n), priority=Priority.HIGH) for n in (1, 59)]
    await world.take(*urgent)
    leaving = world.leaving(rows_per_second=5_000)
    assert await leaving.once() == 500
    assert [e.subject for e in world.returned(RETURNED_HIGH)] == [urgent[1].subject, urgent[0].subject]
    assert len(world.returned()) == 498
    assert await drain(leaving) == [500, 500, 500, 2, 0]
    assert len(world.returned()) == 2_000


async def test_priority_is_told_by_the_message_and_not_by_the_topic_in_which_it_came(world: World) -> None:
    """In `sms.deferred` there may be some of before high priority had a topic of its own here."""
    event = deferred(priority=Priority.HIGH)
    await world.take(event, topic=DEFERRED)
    await world.leaving().once()
    assert [e.subject for e in world.returned(RETURNED_HIGH)] == [event.subject]


async def test_what_a_replica_from_before_there_was_a_priority_stores_is_normal(world: World) -> None:
    event = deferred(priority=Priority.HIGH)
    await world.take(event)
    await world.pool.execute("UPDATE entries SET priority = DEFAULT")
    await world.leaving().once()
    assert [e.subject for e in world.returned(RETURNED)] == [event.subject]


@pytest.mark.parametrize("priority", Priority)
async def test_what_is_due_and_was_erased_ends_once_and_holds_up_nothing(world: World, priority: Priority) -> None:
    erased = [deferred(NOW - timedelta(seconds=60), priority=priority) for _ in range(20)]
    other = deferred(NOW - timedelta(seconds=1), priority=priority)
    await world.take(*erased, other)
    await world.pool.execute("DELETE FROM events WHERE message_id = ANY($1)", [e.subject for e in erased])
    assert await drain(world.leaving(rows_per_second=100)) == [10, 10, 1, 0]
    assert [e.subject for e in world.returned(returned(priority))] == [other.subject]
    assert [e.subject for e in world.ended()] == [e.subject for e in erased]
    data = world.ended()[0].data
    assert (data.tenant, data.recipient, data.leg) == ("acme", erased[0].data.message.recipient, erased[0].data.leg)
    assert (data.status, data.reason and data.reason.code) == (Status.REJECTED, "erased")
    world.now += LEASE
    assert await world.leaving().once() == 0
    outcomes = await world.pool.fetch("SELECT outcome, count(*) FROM entries GROUP BY outcome")
    assert dict(outcomes) == {"returned": 1, "rejected": 20}


async def test_what_was_erased_ends_by_the_same_event_when_it_is_told_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.take(deferred())
    await world.pool.execute("DELETE FROM events")

    async def away(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        patched.setattr(store, "settle", away)
        await world.leaving().once()
    world.now += LEASE
    assert await world.leaving().once() == 1
    first, second = world.bus.records("sms.status")
    assert (second.key, second.value) == (first.key, first.value)


async def test_replicas_share_what_is_due_and_nothing_leaves_twice(world: World) -> None:
    events = [deferred() for _ in range(400)]
    await world.take(*events)
    await asyncio.gather(*(drain(world.leaving(rows_per_second=100)) for _ in range(3)))
    assert sorted(e.subject for e in world.returned()) == sorted(e.subject for e in events)


async def test_what_a_dead_replica_had_taken_is_taken_over_once_its_lease_is_over(world: World) -> None:
    event = deferred()
    await world.take(event)
    assert len(await store.claim(world.pool, 10, world.now, LEASE)) == 1  # and dies
    survivor = world.leaving()
    world.now += LEASE - timedelta(microseconds=1)
    assert await survivor.once() == 0
    world.now += timedelta(microseconds=1)
    assert await survivor.once() == 1
    assert await survivor.once() == 0


async def test_what_could_not_be_published_is_published_again_as_the_same_event(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.take(deferred())
    leaving = world.leaving()
    world.bus.available = False
    with pytest.raises(PublishFailed):
        await leaving.once()
    world.bus.available = True
    world.now += LEASE

    async def away(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        patched.setattr(store, "settle", away)
        await leaving.once()
    [first] = world.bus.records("sms.returned")
    world.now += LEASE
    await leaving.once()
    _, second = world.bus.records("sms.returned")
    assert (second.key, second.value) == (first.key, first.value)


async def test_cancelled_or_returned_never_both(world: World) -> None:
    """Cancellations race the claims, in batches of all sizes."""
    events = [deferred() for _ in range(600)]
    await world.take(*events)
    random = Random(2)
    asked = random.sample(events, len(events))

    async def cancel() -> None:
        left = list(asked)
        while left:
            some = [left.pop() for _ in range(min(len(left), random.randint(1, 30)))]
            await world.take(*(command(e.subject) for e in some))

    await asyncio.gather(cancel(), *(drain(world.leaving(rows_per_second=70)) for _ in range(2)))
    cancelled, returned = ({e.subject for e in found} for found in (world.ended(), world.returned()))
    assert not cancelled & returned
    assert cancelled | returned == {e.subject for e in events}
    assert cancelled and returned, "one of the two was never first: the race was none"


async def test_no_more_leave_than_the_resolver_has_room_for_and_they_go_on_in_order_as_it_takes_them(
    world: World,
) -> None:
    events = [deferred(NOW - timedelta(seconds=n)) for n in range(25)]
    await world.take(*events)
    leaving = world.leaving(records=10)
    world.lag = 4
    assert await drain(leaving) == [6, 0]
    for lag, left in ((10, 0), (11, 0), (9, 1), (0, 10), (0, 8)):
        world.now += timedelta(seconds=1)
        world.lag = lag
        assert await drain(leaving) == ([left, 0] if left else [0])
    assert [e.subject for e in world.returned()] == [e.subject for e in events[::-1]]


async def test_high_priority_leaves_though_there_is_no_room_and_takes_none(world: World) -> None:
    await world.take(*(deferred(NOW - timedelta(seconds=n)) for n in range(5)))
    await world.take(*(deferred(priority=Priority.HIGH) for _ in range(12)))
    leaving = world.leaving(rows_per_second=100, records=3)
    world.lag = 3
    assert await drain(leaving) == [10, 2, 0]
    assert (len(world.returned(RETURNED_HIGH)), len(world.returned())) == (12, 0)
    world.now += timedelta(seconds=1)
    world.lag = 0
    await world.take(*(deferred(priority=Priority.HIGH) for _ in range(4)))
    assert await drain(leaving) == [4 + 3, 0]


async def test_it_looks_once_for_many_batches_and_counts_what_leaves_between(world: World) -> None:
    await world.take(*(deferred() for _ in range(60)))
    leaving = world.leaving(rows_per_second=100, records=45)
    assert await drain(leaving) == [10, 10, 10, 10, 5, 0]
    assert world.looks == 1
    world.now += timedelta(seconds=0.19)
    assert await leaving.once() == 0
    world.now += timedelta(seconds=0.02)
    assert await leaving.once() == 10
    assert world.looks == 2


async def test_while_it_cannot_be_read_how_many_wait_none_is_taken_but_of_high_priority(world: World) -> None:
    await world.take(deferred(), deferred(priority=Priority.HIGH))
    leaving = world.leaving()
    world.lag = None
    for _ in range(2):
        with pytest.raises(KafkaConnectionError):
            await leaving.once()
    assert (len(world.returned(RETURNED_HIGH)), len(world.returned())) == (1, 0)
    assert (
        await world.pool.fetchval("SELECT count(*) FROM entries WHERE leaving_until IS NOT NULL AND outcome IS NULL")
        == 0
    )
    world.lag = 0
    assert await leaving.once() == 1


async def test_what_comes_and_how_it_ends_is_counted_and_how_late_the_first_of_a_batch_leaves(world: World) -> None:
    def counted() -> list[float]:
        settled = "postrider_deferrals_settled_total"
        metrics = [
            ("postrider_deferrals_total", {}),
            (settled, {"outcome": "returned"}),
            (settled, {"outcome": "cancelled"}),
        ]
        metrics += [(f"postrider_return_delay_seconds_{what}", {}) for what in ("count", "sum")]
        return [REGISTRY.get_sample_value(name, labels) or 0.0 for name, labels in metrics]

    before = counted()
    cancelled = deferred(NOW + timedelta(days=1))
    await world.take(*(deferred(NOW - timedelta(seconds=n)) for n in (5, 60, 40)), cancelled)
    await world.take(command(cancelled.subject))
    await world.leaving().once()
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [4, 3, 1, 1, 60]
