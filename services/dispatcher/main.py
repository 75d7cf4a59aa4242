"""The dispatcher: sends one gateway's messages. `python -m services.dispatcher.main`"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from libs.bus.admin import ensure_topics
from libs.bus.consumer import BatchConsumer
from libs.bus.dead_letters import count_from_zero
from libs.bus.errors import INVALID, UNDECODABLE
from libs.bus.producer import Producer
from libs.contracts import topics
from libs.contracts.events import Priority
from libs.service_kit.config_file import Gateway
from libs.service_kit.lifecycle import Lifecycle, run_service
from libs.service_kit.metrics import DEAD_LETTERS, SETTLED, THROTTLES, from_zero
from libs.service_kit.settings import load_configured
from libs.storage.database import BY_KEY
from libs.storage.part import database_part
from libs.storage.retention import keep_days, keep_partitions
from services.dispatcher import marks
from services.dispatcher.attempts import Outcome, word_of
from services.dispatcher.drivers.table import make_driver
from services.dispatcher.instance import Instance, live
from services.dispatcher.ledger import PARTITIONED
from services.dispatcher.settings import DispatcherSettings

MIGRATIONS = Path(__file__).parent / "migrations"
MARKS_GROUP = "dispatchers.marks"
"""One group for the dispatchers of all gateways. `dispatcher.marks` would be the group of a gateway whose id is `marks`."""


async def start(life: Lifecycle, settings: DispatcherSettings, gateway: Gateway) -> None:
    """Internal HTTP first, so that waiting can be seen; what sends last. The stop goes the other way."""
    kafka = settings.kafka
    work = [topics.dispatch(gateway.id, priority) for priority in Priority]
    from_zero(DEAD_LETTERS, (topic.name for topic in work), (UNDECODABLE, INVALID))
    count_from_zero([topics.COMMANDS])
    from_zero(SETTLED, [gateway.id], [word_of(Outcome.DOUBT), word_of(Outcome.DOUBT_BY_PEER)])
    from_zero(THROTTLES, [gateway.id])
    await life.serve_ops()
    pool = await database_part(life, settings, "dispatch", MIGRATIONS, PARTITIONED, BY_KEY)
    life.background("partitions", keep_partitions(pool, PARTITIONED, settings.dispatcher_keep_days))
    life.background("old marks", keep_days("old marks", settings.dispatcher_keep_days, partial(marks.forget, pool)))
    told = [topic_of(priority) for topic_of in (topics.returned, topics.deferred) for priority in Priority]
    used = (*work, *told, topics.STATUS, topics.RECEIPTS, topics.INBOUND, topics.COMMANDS)
    await life.part("topics", lambda: ensure_topics(kafka, used))
    producer = Producer(kafka, f"dispatcher.{gateway.id}")
    await life.part("kafka", producer.start, lambda _: producer.stop())
    marking = BatchConsumer(kafka, MARKS_GROUP, [topics.COMMANDS], partial(marks.mark, pool=pool), producer)
    await life.consumer("marks", marking)

    current: Instance | None = None
    stopped = asyncio.Event()

    def make() -> Instance:
        nonlocal current
        current = Instance(settings, gateway, pool, producer, make_driver)
        return current

    sending = life.background("sending", live(make, stopped))

    async def stop_sending() -> None:
        stopped.set()
        await asyncio.wait([sending])

    life.on_stop("sending, drained", stop_sending)
    life.ready_when("gateway", lambda: current.missing if current else "starting")


def main() -> None:
    settings, configuration = load_configured(DispatcherSettings)
    try:
        gateway = configuration.gateway(settings.dispatcher_gateway)
    except KeyError as error:
        raise SystemExit(f"DISPATCHER_GATEWAY: {error.args[0]}") from None
    run_service(f"dispatcher.{gateway.id}", settings, partial(start, settings=settings, gateway=gateway))


if __name__ == "__main__":
    main()
