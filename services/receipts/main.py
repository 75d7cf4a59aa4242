"""Receipts: turns what gateways report of their ids into what became of messages. `python -m services.receipts.main`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from libs.bus.admin import ensure_topics
from libs.bus.consumer import BatchConsumer
from libs.bus.dead_letters import count_from_zero
from libs.bus.group_progress import GroupProgress
from libs.bus.pacing import UNHURRIED
from libs.bus.producer import Producer
from libs.bus.stream import StreamOptions
from libs.contracts import topics
from libs.service_kit.config_file import Configuration
from libs.service_kit.lifecycle import Lifecycle, run_service
from libs.service_kit.metrics import RECEIPTS_PARKED, UNREPORTED, from_zero
from libs.service_kit.periodic import repeat
from libs.service_kit.settings import load_configured
from libs.storage.part import database_part
from libs.storage.retention import keep_days
from services.receipts import unreported
from services.receipts.caught_up import CaughtUp
from services.receipts.forgetting import forget
from services.receipts.handlers import UNUSABLE_ID, WITHOUT_ID, handle
from services.receipts.parked_api import ParkedApi
from services.receipts.recent import RecentRegistrations
from services.receipts.settings import ReceiptsSettings
from services.receipts.statuses import SOURCE

MIGRATIONS = Path(__file__).parent / "migrations"
CONSUMED = (topics.STATUS, topics.RECEIPTS)


async def start(life: Lifecycle, settings: ReceiptsSettings, configuration: Configuration) -> None:
    """Internal HTTP first, so that waiting can be seen; the consumer last. The stop goes the other way."""
    kafka = settings.kafka
    windows = {g.id: timedelta(hours=g.receipt_window_hours) for g in configuration.gateways}
    count_from_zero(CONSUMED)
    count_from_zero([topics.RECEIPTS], WITHOUT_ID.code, UNUSABLE_ID.code)
    from_zero(RECEIPTS_PARKED, windows)
    from_zero(UNREPORTED, windows)
    api = ParkedApi()
    await life.serve_ops(api.routes())
    pool = api.pool = await database_part(life, settings, "receipts", MIGRATIONS)
    await life.part("topics", lambda: ensure_topics(kafka, CONSUMED))
    producer = Producer(kafka, client_id="receipts")
    await life.part("kafka", producer.start, lambda _: producer.stop())
    handler = partial(
        handle, pool=pool, publisher=producer, destination_key=settings.destination_key, recent=RecentRegistrations()
    )
    own_passed_over = StreamOptions(own_source=SOURCE)
    consumer = BatchConsumer(kafka, "receipts", CONSUMED, handler, producer, pacing=UNHURRIED, options=own_passed_over)
    progress = GroupProgress(kafka, "receipts", CONSUMED)
    await life.part("progress", progress.start, lambda _: progress.stop())
    caught_up = CaughtUp(progress)

    async def sweep() -> None:
        if await caught_up():
            await unreported.sweep(pool, producer, windows, datetime.now(UTC))

    life.background("sweep", repeat("sweep of the unreported", unreported.SWEEP_SECONDS, sweep))
    life.background("old rows", keep_days("old rows", settings.receipts_keep_days, partial(forget, pool)))
    await life.consumer("consumer", consumer)


def main() -> None:
    settings, configuration = load_configured(ReceiptsSettings)
    run_service("receipts", settings, partial(start, settings=settings, configuration=configuration))


if __name__ == "__main__":
    main()
