"""Inbound: keeps what handsets sent, joins its parts, and answers what is asked of it. `python -m services.inbound.main`."""

from __future__ import annotations

from functools import partial

from libs.bus.admin import ensure_topics
from libs.bus.consumer import BatchConsumer
from libs.bus.dead_letters import count_from_zero
from libs.bus.producer import Producer
from libs.contracts import topics
from libs.service_kit.config_file import Configuration
from libs.service_kit.lifecycle import Lifecycle, run_service
from libs.service_kit.settings import load_configured
from libs.storage.part import database_part
from libs.storage.retention import keep_partitions
from services.inbound.handlers import NOT_HEX, handle
from services.inbound.read_api import Inbox, ReadApi
from services.inbound.settings import InboundSettings
from services.inbound.store import MIGRATIONS, PARTITIONED, SCHEMA

CONSUMED = (topics.INBOUND,)


async def start(life: Lifecycle, settings: InboundSettings, configuration: Configuration) -> None:
    """Internal HTTP first, so that waiting can be seen; the consumer last. The stop goes the other way."""
    kafka = settings.kafka
    count_from_zero(CONSUMED, NOT_HEX.code)
    api = ReadApi()
    await life.serve_ops(api.routes())
    pool = await database_part(life, settings, SCHEMA, MIGRATIONS, PARTITIONED)
    life.background("partitions", keep_partitions(pool, PARTITIONED, settings.inbound_keep_days))
    api.inbox = Inbox(pool, settings.inbound_read_seconds, configuration.default_region)
    await life.part("topics", lambda: ensure_topics(kafka, CONSUMED))
    producer = Producer(kafka, client_id="inbound")
    await life.part("kafka", producer.start, lambda _: producer.stop())
    handler = partial(handle, pool=pool, tenant_of=configuration.tenant_of, default_region=configuration.default_region)
    consumer = BatchConsumer(kafka, "inbound", CONSUMED, handler, producer)
    await life.consumer("consumer", consumer)


def main() -> None:
    settings, configuration = load_configured(InboundSettings)
    run_service("inbound", settings, partial(start, settings=settings, configuration=configuration))


if __name__ == "__main__":
    main()
