"""Receipts: turns what gateways report of their ids into what became of messages. `python -m services.receipts.main`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from libs.bus.admin import ensure_topics
from libs.bus.consumer import BatchConsumer
from libs.bus.producer import Producer
from libs.contracts import topics
from libs.service_kit.lifecycle import Lifecycle, run_service
from libs.service_kit.settings import load_settings
from libs.storage.database import Pool, open_database
from services.receipts.handlers import handle
from services.receipts.parked_api import ParkedApi
from services.receipts.settings import ReceiptsSettings
from services.receipts.statuses import SOURCE

MIGRATIONS = Path(__file__).parent / "migrations"
CONSUMED = (topics.STATUS, topics.RECEIPTS)


async def start(life: Lifecycle, settings: ReceiptsSettings) -> None:
    """Internal HTTP first, so that waiting can be seen; the consumer last. The stop goes the other way."""
    kafka = settings.kafka_bootstrap_servers
    api = ParkedApi()
    await life.serve_ops(api.routes())

    async def open_pool() -> Pool:
        return await open_database(
            settings.postgres_dsn.unicode_string(), "receipts", MIGRATIONS, settings.postgres_connections
        )

    pool = api.pool = await life.part("postgres", open_pool, lambda pool: pool.close())
    await life.part("topics", lambda: ensure_topics(kafka, CONSUMED))
    producer = Producer(kafka, client_id="receipts")
    await life.part("kafka", producer.start, lambda _: producer.stop())
    handler = partial(handle, pool=pool, publisher=producer, destination_key=settings.destination_key)
    consumer = BatchConsumer(kafka, "receipts", CONSUMED, handler, producer, own_source=SOURCE)
    life.ready_when("consumer", lambda: None if consumer.ready else consumer.state)
    await life.part("consumer", consumer.start, lambda _: consumer.stop(settings.drain_budget_seconds))


def main() -> None:
    settings = load_settings(ReceiptsSettings)
    run_service("receipts", settings, partial(start, settings=settings))


if __name__ == "__main__":
    main()
