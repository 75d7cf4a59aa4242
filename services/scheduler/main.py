"""Scheduler: keeps what is deferred until it is due, then gives it back to be resolved. `python -m services.scheduler.main`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from libs.bus.admin import ensure_topics
from libs.bus.consumer import BatchConsumer
from libs.bus.dead_letters import count_from_zero
from libs.bus.errors import INVALID
from libs.bus.group_progress import GroupProgress
from libs.bus.poison import tell_history
from libs.bus.producer import Producer
from libs.bus.stream import StreamOptions
from libs.contracts import topics
from libs.contracts.topics import RESOLVER_GROUP
from libs.service_kit.lifecycle import Lifecycle, run_service
from libs.service_kit.settings import load_settings
from libs.storage.part import database_part
from libs.storage.retention import keep_days
from services.scheduler import store
from services.scheduler.handlers import handle
from services.scheduler.leaving import Leaving
from services.scheduler.poison import end_leg
from services.scheduler.publications import SOURCE
from services.scheduler.room import Room
from services.scheduler.settings import SchedulerSettings

MIGRATIONS = Path(__file__).parent / "migrations"
CONSUMED = (topics.DEFERRED_HIGH, topics.DEFERRED, topics.COMMANDS)


async def start(life: Lifecycle, settings: SchedulerSettings) -> None:
    """Internal HTTP first, so that waiting can be seen; the consumer last. The stop goes the other way."""
    kafka = settings.kafka
    count_from_zero(CONSUMED)
    count_from_zero([topics.DEFERRED_HIGH, topics.DEFERRED], INVALID)
    await life.serve_ops()
    pool = await database_part(life, settings, "scheduler", MIGRATIONS, parameters=store.PARAMETERS)
    life.background("old rows", keep_days("old rows", settings.scheduler_keep_days, partial(store.forget, pool)))
    await life.part(
        "topics", lambda: ensure_topics(kafka, (*CONSUMED, topics.RETURNED_HIGH, topics.RETURNED, topics.STATUS))
    )
    producer = Producer(kafka, client_id="scheduler")
    await life.part("kafka", producer.start, lambda _: producer.stop())

    resolver = GroupProgress(kafka, RESOLVER_GROUP, (topics.RETURNED,))
    await life.part("resolver's progress", resolver.start, lambda _: resolver.stop())

    async def lag() -> int:  # of its normal lane: what is of high priority waits for no room
        return await resolver.behind(await resolver.ends())

    life.watch("resolver's progress", lag)  # while nobody says, nothing of normal priority leaves
    room = Room(lag, settings.scheduler_waiting_records)
    lease = timedelta(seconds=settings.scheduler_lease_seconds)
    leaving = Leaving(pool, producer, _now, settings.scheduler_rows_per_second, lease, room)
    running = life.background("leaving", leaving.run())

    async def stop_leaving() -> None:
        leaving.stop()
        await asyncio.wait([running], timeout=life.left_seconds)

    life.on_stop("leaving, drained", stop_leaving)

    handler = partial(handle, pool=pool, publisher=producer, now=_now, on_arrival=leaving.on_arrival)
    end = partial(end_leg, pool=pool, now=_now)
    options = StreamOptions(on_dead_letter=partial(tell_history, source=SOURCE, publisher=producer, end_leg=end))
    consumer = BatchConsumer(kafka, "scheduler", CONSUMED, handler, producer, options=options)
    await life.consumer("consumer", consumer)


def _now() -> datetime:
    return datetime.now(UTC)


def main() -> None:
    settings = load_settings(SchedulerSettings)
    run_service("scheduler", settings, partial(start, settings=settings))


if __name__ == "__main__":
    main()
