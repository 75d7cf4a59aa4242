"""The projection: journals and folds every event about a message into the outbox, and answers what is asked of it.

`python -m services.projection.main`
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from libs.bus.admin import ensure_topics
from libs.bus.consumer import BatchConsumer
from libs.bus.dead_letters import count_from_zero
from libs.bus.pacing import UNHURRIED
from libs.bus.producer import Producer
from libs.bus.stream import StreamOptions
from libs.contracts import topics
from libs.contracts.events import Priority
from libs.service_kit.config_file import Configuration
from libs.service_kit.lifecycle import Lifecycle, run_service
from libs.service_kit.settings import load_configured
from libs.storage.database import BY_KEY, Pool, close_database, open_database
from libs.storage.retention import keep_partitions
from services.projection import queries, store
from services.projection.arrivals import Arrivals
from services.projection.consumed import CONSUMED
from services.projection.folding import NO_MESSAGE_ID
from services.projection.gathering import MessagesGathered
from services.projection.handlers import handle, prepare
from services.projection.hurrying import Hurry
from services.projection.journal import NO_UUID
from services.projection.read_api import Outbox, ReadApi
from services.projection.recent import RecentFolds
from services.projection.settings import ProjectionSettings
from services.projection.source import StoredOffsetsSource
from services.projection.store import MIGRATIONS, PARTITIONED, SCHEMA

FOLDING = 2
"""Connections of the fold's own, so that slow reads never hold it up: one writes a batch, one reads what the next batch needs."""

MOST_DEAD_LETTERS = 200
"""In a row. More than elsewhere: what can't be read comes here before what is kept back, so all that a topic has may come in one run."""


async def start(life: Lifecycle, settings: ProjectionSettings, configuration: Configuration) -> None:
    """Internal HTTP first, so that waiting can be seen; the consumer last. The stop goes the other way."""
    kafka = settings.kafka
    api = ReadApi()
    await life.serve_ops(api.routes())

    async def open_pool(connections: int, parameters: Mapping[str, str]) -> Pool:
        dsn = str(settings.postgres_dsn)
        return await open_database(dsn, SCHEMA, MIGRATIONS, connections, PARTITIONED, parameters)

    async def open_writer() -> Pool:
        pool = await open_pool(FOLDING, BY_KEY)
        await store.require_rights(pool)
        return pool

    reading = settings.postgres_connections - FOLDING
    writer = await life.part("postgres", open_writer, close_database)
    life.watch("postgres", lambda: writer.fetchval("SELECT 1"))
    readers = await life.part("postgres for reads", lambda: open_pool(reading, queries.PARAMETERS), close_database)
    life.background("partitions", keep_partitions(writer, PARTITIONED, settings.projection_keep_days))
    used = [topic for topic in CONSUMED if isinstance(topic, topics.Topic)]
    for priority in Priority:
        used += [topics.requested(priority), topics.returned(priority), topics.deferred(priority)]
        used += [topics.dispatch(gateway.id, priority) for gateway in configuration.gateways]
    count_from_zero(used, NO_UUID.code, NO_MESSAGE_ID.code)
    await life.part("topics", lambda: ensure_topics(kafka, used))
    producer = Producer(kafka, client_id="projection")
    recent = RecentFolds(settings.projection_recent_folds)
    consumer = BatchConsumer(
        kafka,
        topics.PROJECTION_GROUP,
        CONSUMED,
        partial(handle, pool=writer, recent=recent),
        producer,
        prepare=lambda batch: prepare(batch.records, pool=writer, recent=recent),
        pacing=UNHURRIED,
        options=StreamOptions(
            dead_letter_limit=MOST_DEAD_LETTERS,
            open_source=partial(StoredOffsetsSource, pool=writer),
            gather=MessagesGathered,
            decode=False,
        ),
    )
    arrivals = Arrivals(kafka, readers)
    await life.part("kafka for reads", arrivals.start, lambda _: arrivals.stop())
    hurry = Hurry(readers, consumer.hurry)
    life.background("hurry", hurry.run())
    api.outbox = Outbox(
        readers,
        arrivals,
        hurry,
        settings.projection_wait_seconds,
        settings.projection_read_seconds,
        configuration.default_region,
    )
    await life.part("kafka", producer.start, lambda _: producer.stop())
    await life.consumer("consumer", consumer)


def main() -> None:
    settings, configuration = load_configured(ProjectionSettings)
    run_service("projection", settings, partial(start, settings=settings, configuration=configuration))


if __name__ == "__main__":
    main()
