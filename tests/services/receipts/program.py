"""The receipts service as the process that it is, and what goes in and comes out of it on Kafka."""

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from deploy.local.ports import free_port
from deploy.local.processes import Child
from libs.bus.codec import encode
from libs.bus.producer import Producer
from libs.contracts import topics
from libs.contracts.events import Event, GatewayReceipt, MessageEvent, SmsStatus, receipt_key
from libs.contracts.topics import Topic
from libs.service_kit.internal import HEADER
from services.receipts.main import CONSUMED
from services.receipts.statuses import SOURCE
from tests.services.receipts.examples import KEY, read_status

ROOT = Path(__file__).parents[3]
TOKEN = "a token of the services"
WITHIN_SECONDS = 40.0


async def until(condition: Callable[[], bool], what: str, seconds: float = WITHIN_SECONDS) -> None:
    """Wait for a condition, bounded."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {seconds:g} s") from None


@dataclass
class Program:
    """Starts the service again and again, on the same ground."""

    directory: Path
    kafka: str
    dsn: str
    port: int = field(default_factory=free_port)
    child: Child | None = None

    async def start(self, crash_at: str = "", ready: bool = True) -> Child:
        environment = os.environ | {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "POSTGRES_DSN": self.dsn,
            "OPS_PORT": str(self.port),
            "INTERNAL_TOKEN": TOKEN,
            "RECEIPTS_DESTINATION_KEY": KEY.decode(),
            "CRASH_AT": crash_at,
        }
        command = (sys.executable, "-m", "services.receipts.main")
        log = self.directory / "receipts.log"
        self.child = await Child.spawn(command, log=log, environment=environment, directory=ROOT)
        if ready:
            await self._ready(self.child)
        return self.child

    async def _ready(self, child: Child) -> None:
        async with asyncio.timeout(WITHIN_SECONDS), aiohttp.ClientSession() as session:
            while child.running:
                try:
                    async with session.get(f"http://127.0.0.1:{self.port}/health/ready") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
        raise AssertionError(f"the service did not start:\n{child.log_tail()}")

    async def stop(self) -> int | None:
        """SIGTERM; answers the exit code."""
        if self.child is None:
            return None
        await self.child.stop(budget=30)
        return self.child.exit_code

    async def get(self, path: str, token: str = TOKEN) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}{path}", headers={HEADER: token}) as response,
        ):
            return response.status, await response.text()


class Traffic:
    """Publishes what the service reads, and collects what it writes, dead letters included, from the beginning."""

    def __init__(self, kafka: str) -> None:
        self._kafka = kafka
        self._producer = Producer(kafka, client_id="test")
        self._consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
        self._reading: asyncio.Task[None] | None = None
        self.records: list[ConsumerRecord] = []

    async def start(self) -> None:
        await self._producer.start()
        await self._consumer.start()
        read = [(topics.STATUS.name, topics.STATUS.partitions), *((t.dead_letter, 1) for t in CONSUMED)]
        self._consumer.assign([TopicPartition(name, p) for name, count in read for p in range(count)])
        self._reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        await self._consumer.stop()
        await self._producer.stop()

    async def _read(self) -> None:
        async for record in self._consumer:
            self.records.append(record)

    async def statuses(self, *events: MessageEvent[SmsStatus]) -> None:
        await self._producer.publish(topics.STATUS.name, [(str(e.subject).encode(), encode(e)) for e in events])

    async def receipts(self, *events: Event[GatewayReceipt]) -> None:
        records = [(receipt_key(e.data.gateway, e.data.provider_id), encode(e)) for e in events]
        await self._producer.publish(topics.RECEIPTS.name, records)

    async def raw(self, topic: Topic, *values: bytes) -> None:
        await self._producer.publish(topic.name, [(b"poison", value) for value in values])

    def said(self, provider_id: str | None = None) -> list[MessageEvent[SmsStatus]]:
        """What the service has published (about an id), duplicates included."""
        values = [
            r.value for r in self.records if r.topic == topics.STATUS.name and SOURCE.encode() in (r.value or b"")
        ]
        events = [read_status(value) for value in values]
        return [e for e in events if provider_id is None or e.data.provider_id == provider_id]

    def dead(self, topic: Topic) -> list[ConsumerRecord]:
        return [r for r in self.records if r.topic == topic.dead_letter]

    async def set_back(self) -> None:
        """Set the service's group, which has no members now, back to the beginning."""
        partitions = [TopicPartition(t.name, p) for t in CONSUMED for p in range(t.partitions)]
        consumer = AIOKafkaConsumer(bootstrap_servers=self._kafka, group_id="receipts", enable_auto_commit=False)
        await consumer.start()
        consumer.assign(partitions)
        await consumer.commit(dict.fromkeys(partitions, 0))
        await consumer.stop()
