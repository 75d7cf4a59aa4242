"""The dispatcher: sends one gateway's messages. `python -m services.dispatcher.main`"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from libs.bus.admin import ensure_topics
from libs.bus.consumer import BatchConsumer
from libs.bus.dead_letters import count_from_zero
from libs.bus.errors import INVALID, UNDECODABLE
from libs.bus.producer import Producer
from libs.contracts import topics
from libs.contracts.events import Priority
from libs.service_kit.lifecycle import Lifecycle, run_service
from libs.service_kit.metrics import DEAD_LETTERS, SETTLED, THROTTLES, from_zero
from libs.service_kit.periodic import repeat
from libs.service_kit.settings import load_configured
from libs.storage.database import BY_KEY, open_database
from libs.storage.retention import CHECK_SECONDS, keep_partitions
from services.dispatcher.attempts import Outcome, word_of
from services.dispatcher.drivers.table import make_driver
from services.dispatcher.instance import Instance, live
from services.dispatcher.ledger import PARTITIONED
from services.dispatcher.marks import forget_marks, mark_messages
from services.dispatcher.settings import DispatcherSettings

MIGRATIONS = Path(__file__).parent / "migrations"
MARKS_GROUP = "dispatchers.marks"
"""Of all gateways' dispatchers. A gateway's own groups begin with `dispatcher.` and its id, which might be `marks`."""


def main() -> None:
    settings, configuration = load_configured(DispatcherSettings)
    try:
        gateway = configuration.gateway(settings.dispatcher_gateway)
    except KeyError as error:
        raise SystemExit(f"DISPATCHER_GATEWAY: {error.args[0]}") from None

    async def start(life: Lifecycle) -> None:
        work = [topics.dispatch(gateway.id, priority) for priority in Priority]
        from_zero(DEAD_LETTERS, (topic.name for topic in work), (UNDECODABLE, INVALID))
        count_from_zero([topics.COMMANDS])
        from_zero(SETTLED, [gateway.id], [word_of(Outcome.DOUBT), word_of(Outcome.DOUBT_BY_PEER)])
        from_zero(THROTTLES, [gateway.id])
        await life.serve_ops()
        pool = await life.part(
            "postgres",
            lambda: open_database(
                str(settings.postgres_dsn),
                "dispatch",
                MIGRATIONS,
                settings.postgres_connections,
                PARTITIONED,
                BY_KEY,
            ),
            lambda opened: opened.close(),
        )
        life.watch("postgres", lambda: pool.fetchval("SELECT 1"))
        life.background("partitions", keep_partitions(pool, PARTITIONED, settings.dispatcher_keep_days))

        async def forget() -> None:
            await forget_marks(pool, datetime.now(UTC) - timedelta(days=settings.dispatcher_keep_days))

        life.background("old marks", repeat("deletion of old marks", CHECK_SECONDS, forget))
        servers = settings.kafka_bootstrap_servers
        used = (
            *work,
            *(topics.returned(priority) for priority in Priority),
            *(topics.deferred(priority) for priority in Priority),
            topics.STATUS,
            topics.RECEIPTS,
            topics.INBOUND,
            topics.COMMANDS,
        )
        await life.part("topics", lambda: ensure_topics(servers, used))
        producer = Producer(servers, f"dispatcher.{gateway.id}")
        await life.part("kafka", producer.start, lambda _: producer.stop())
        marks = BatchConsumer(
            servers, group=MARKS_GROUP, topics=[topics.COMMANDS], handler=mark_messages(pool), producer=producer
        )
        await life.consumer("marks", marks)

        current: list[Instance] = []
        stopped = asyncio.Event()

        def make() -> Instance:
            current[:] = [Instance(settings, gateway, pool, producer, make_driver)]
            return current[0]

        sending = life.background("sending", live(make, stopped))

        async def stop_sending() -> None:
            stopped.set()
            await asyncio.wait([sending])

        life.on_stop("sending, drained", stop_sending)
        life.ready_when("gateway", lambda: current[0].missing if current else "starting")

    run_service(f"dispatcher.{gateway.id}", settings, start)


if __name__ == "__main__":
    main()
