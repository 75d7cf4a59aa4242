"""When it looks, how long it pauses and sleeps, what wakes it, and how it stops."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from libs.contracts.events import Priority
from libs.contracts.topics import RETURNED_HIGH
from libs.service_kit.lifecycle import Lifecycle
from libs.service_kit.waiting import set_within
from libs.storage.database import Pool
from services.scheduler import leaving as leaving_module
from services.scheduler import main, store
from services.scheduler.leaving import LOOK_SECONDS
from services.scheduler.settings import SchedulerSettings
from tests.conftest import DatabaseFactory
from tests.services.scheduler.builders import NOW, deferred
from tests.services.scheduler.conftest import World
from tests.waiting import until


async def test_without_room_it_goes_on_to_look_for_high_priority(world: World) -> None:
    await world.take(deferred())
    leaving = world.leaving(records=1)
    world.lag = 1
    running = asyncio.create_task(leaving.run())
    async with asyncio.timeout(20):
        while world.looks < 1:
            await asyncio.sleep(0.01)
        await world.take(deferred(priority=Priority.HIGH))
        while not world.returned(RETURNED_HIGH):
            await asyncio.sleep(0.01)
        leaving.stop()
        await running
    assert world.returned() == []


async def test_full_or_without_an_answer_it_waits_and_goes_on_by_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[Pool] = []

    async def next_due(pool: Pool) -> datetime:  # to sleep until what is due already would be no sleep
        slept.append(pool)
        return NOW

    monkeypatch.setattr(store, "next_due", next_due)
    await world.take(*(deferred() for _ in range(3)))
    leaving = world.leaving(records=1)
    world.lag = None
    running = asyncio.create_task(leaving.run())

    async def on_until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                world.now += timedelta(seconds=1)
                await asyncio.sleep(0.01)

    for world.lag in (None, 1):
        enough = world.looks + 2
        await on_until(lambda enough=enough: world.looks >= enough)
        assert (world.returned(), slept) == ([], [])
    world.lag = 0
    await on_until(lambda: len(world.returned()) == 3)
    leaving.stop()
    await asyncio.wait_for(running, 5)


@pytest.mark.parametrize(
    ("first", "seconds"), [(None, LOOK_SECONDS), (86_400.0, LOOK_SECONDS), (LOOK_SECONDS / 2, LOOK_SECONDS / 2)]
)
async def test_it_sleeps_until_the_first_is_due_and_no_longer_than_to_the_next_look(
    world: World, first: float | None, seconds: float
) -> None:
    if first is not None:
        await world.take(deferred(NOW + timedelta(seconds=first)))
    leaving = world.leaving()
    sleeping = asyncio.create_task(leaving._sleep())
    await until(lambda: leaving._sleeps_until is not None)
    assert leaving._sleeps_until == NOW + timedelta(seconds=seconds)
    leaving.stop()
    await sleeping


async def test_it_is_woken_by_what_is_due_before_it_would_look_again(world: World) -> None:
    leaving = world.leaving()
    sleeping = asyncio.create_task(leaving._sleep())
    async with asyncio.timeout(10):
        while leaving._sleeps_until is None:
            await asyncio.sleep(0)
        leaving.on_arrival(NOW + timedelta(days=1))
        assert not leaving._woken.is_set()
        leaving.on_arrival(NOW)
        await sleeping


async def test_woken_once_it_looks_once_and_sleeps_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Pool] = []

    async def next_due(pool: Pool) -> None:
        looks.append(pool)

    monkeypatch.setattr(store, "next_due", next_due)
    monkeypatch.setattr(leaving_module, "LOOK_SECONDS", 3600.0)
    leaving = world.leaving()
    running = asyncio.create_task(leaving.run())
    await until(lambda: len(looks) == 1 and leaving._sleeps_until)
    leaving.on_arrival(NOW)
    await until(lambda: len(looks) > 1 and leaving._sleeps_until)
    for _ in range(10):
        await world.pool.fetchval("SELECT 1")
    assert len(looks) == 2
    leaving.stop()
    await asyncio.wait_for(running, 20)


async def test_after_a_full_batch_it_pauses_for_what_is_left_of_its_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = count()
    monkeypatch.setattr(leaving_module, "time", SimpleNamespace(monotonic=lambda: next(steps) * 0.03))
    await world.take(*(deferred() for _ in range(25)))
    leaving = world.leaving(rows_per_second=100)
    pauses: list[float] = []

    async def pause(event: asyncio.Event, seconds: float | None) -> bool:
        if event is not leaving._stopping:
            return await set_within(event, seconds)
        pauses.append(seconds or 0)
        return False

    monkeypatch.setattr(leaving_module, "set_within", pause)
    running = asyncio.create_task(leaving.run())
    await until(lambda: len(world.returned()) == 25)
    leaving.stop()
    await asyncio.wait_for(running, 20)
    assert pauses == pytest.approx([10 / 100 - 0.03] * 2)


async def test_told_to_stop_it_takes_no_more(world: World) -> None:
    leaving = world.leaving(rows_per_second=1)
    await world.take(*(deferred() for _ in range(3)))
    running = asyncio.create_task(leaving.run())
    async with asyncio.timeout(20):
        while not world.returned():
            await asyncio.sleep(0.01)
        leaving.stop()
        await running
    left = await world.pool.fetchval("SELECT count(*) FROM entries WHERE leaving_until IS NULL")
    assert left == 3 - len(world.returned()) > 0


async def test_its_pace_and_its_lease_are_as_configured(
    kafka: str, postgres: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Enough(Exception):
        """So far, and no further."""

    def made(*arguments: Any) -> None:
        given.extend(arguments)
        raise Enough

    given: list[Any] = []
    monkeypatch.setattr(main, "Leaving", made)
    settings = SchedulerSettings.model_validate(
        {
            "kafka_bootstrap_servers": kafka,
            "ops_port": 0,
            "internal_token": "x" * 16,
            "postgres_dsn": await postgres(),
            "scheduler_rows_per_second": 70,
            "scheduler_lease_seconds": 7,
        }
    )
    life = Lifecycle(settings)
    try:
        with pytest.raises(Enough):
            await main.start(life, settings)
    finally:
        await life.stop_all()
    assert given[3:5] == [70, timedelta(seconds=7)]
