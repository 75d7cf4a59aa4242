"""The resolver as the process that it is, and what goes in and comes out of it on Kafka."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from deploy.local.ports import free_port
from deploy.local.processes import Child
from libs.bus.codec import decoder, encode
from libs.bus.port import Outgoing
from libs.bus.producer import Producer
from libs.contracts import topics
from libs.contracts.events import ContactChanged, Event, MessageEvent, SmsRequested, SmsReturned, person_key
from libs.contracts.topics import Topic
from libs.service_kit.internal import HEADER, TENANT_HEADER
from services.resolver.main import MESSAGES

ROOT = Path(__file__).parents[3]
TOKEN = "a token of the services"
CONFIGURATION = """
gateways:
  - {id: demo, type: smpp, host: 127.0.0.1, port: 2775, systemId: demo, sourceAddress: BANK}
defaultGateway: demo
defaultRegion: KE
"""
WITHIN_SECONDS = 40.0
DISPATCHED = (topics.dispatch("demo"), topics.dispatch("demo", topics.Priority.HIGH))
OUT = (*DISPATCHED, topics.STATUS)


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
    """Starts the resolver again and again, on the same ground."""

    directory: Path
    kafka: str
    dsn: str
    port: int = field(default_factory=free_port)
    child: Child | None = None

    async def start(self, crash_at: str = "", ready: bool = True) -> Child:
        configuration = self.directory / "postrider.yaml"
        configuration.write_text(CONFIGURATION)
        environment = os.environ | {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "POSTGRES_DSN": self.dsn,
            "POSTRIDER_CONFIG": str(configuration),
            "OPS_PORT": str(self.port),
            "INTERNAL_TOKEN": TOKEN,
            "CRASH_AT": crash_at,
        }
        command = (sys.executable, "-m", "services.resolver.main")
        log = self.directory / "resolver.log"
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
        raise AssertionError(f"the resolver did not start:\n{child.log_tail()}")

    async def stop(self) -> int | None:
        """SIGTERM; answers the exit code."""
        if self.child is None:
            return None
        await self.child.stop(budget=30)
        return self.child.exit_code

    async def http(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.port}/internal/{path}"
        headers = {HEADER: TOKEN, TENANT_HEADER: "acme"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, headers=headers, json=body) as response,
        ):
            return response.status, await response.json(content_type=None) if response.status != 204 else None


class Traffic:
    """Publishes what the resolver reads, and collects what it writes, dead letters included, from the beginning."""

    def __init__(self, kafka: str) -> None:
        self._kafka = kafka
        self._producer = Producer(kafka, client_id="test")
        self._consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
        self._reading: asyncio.Task[None] | None = None
        self.records: list[ConsumerRecord] = []

    async def start(self) -> None:
        await self._producer.start()
        await self._consumer.start()
        dead = [(t.dead_letter, 1) for t in (*MESSAGES, topics.CONTACT_CHANGED)]
        partitions = [(t.name, t.partitions) for t in OUT] + dead
        self._consumer.assign([TopicPartition(name, p) for name, count in partitions for p in range(count)])
        self._reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        await self._consumer.stop()
        await self._producer.stop()

    async def _read(self) -> None:
        async for record in self._consumer:
            self.records.append(record)

    async def ask(self, *causes: MessageEvent[SmsRequested] | MessageEvent[SmsReturned]) -> None:
        await self._producer.publish_many([self._outgoing(cause) for cause in causes])

    def _outgoing(self, cause: MessageEvent[SmsRequested] | MessageEvent[SmsReturned]) -> Outgoing:
        message = cause.data.message
        back = isinstance(cause.data, SmsReturned)
        topic = topics.RETURNED if back else topics.requested(message.priority)
        return Outgoing(topic.name, person_key(message.tenant, message.recipient), encode(cause))

    async def change(self, *changes: Event[ContactChanged]) -> None:
        records = [(person_key(c.data.tenant, c.data.recipient), encode(c)) for c in changes]
        await self._producer.publish(topics.CONTACT_CHANGED.name, records)

    async def raw(self, topic: Topic, *values: bytes) -> None:
        await self._producer.publish(topic.name, [(b"acme/client/1", value) for value in values])

    def of(self, topic: Topic) -> Sequence[ConsumerRecord]:
        return [r for r in self.records if r.topic == topic.name]

    def dead(self, topic: Topic) -> Sequence[ConsumerRecord]:
        return [r for r in self.records if r.topic == topic.dead_letter]

    def about(self, cause: MessageEvent[Any]) -> list[tuple[str, MessageEvent[Any]]]:
        """The events about a message, with their topics, duplicates included."""
        read = {topic.name: decoder(topic) for topic in OUT}
        events = [(r.topic, read[r.topic](r.value)) for r in self.records if r.topic in read]
        return [(topic, e) for topic, e in events if isinstance(e, MessageEvent) and e.subject == cause.subject]

    async def answer(self, cause: MessageEvent[Any]) -> tuple[str, MessageEvent[Any]]:
        """The first event about a message."""
        await until(lambda: bool(self.about(cause)), "an event about the message")
        return self.about(cause)[0]

    async def set_back(self, group: str, read: Sequence[Topic]) -> None:
        """Set a group without members back to the beginning."""
        partitions = [TopicPartition(t.name, p) for t in read for p in range(t.partitions)]
        consumer = AIOKafkaConsumer(bootstrap_servers=self._kafka, group_id=group, enable_auto_commit=False)
        await consumer.start()
        consumer.assign(partitions)
        await consumer.commit(dict.fromkeys(partitions, 0))
        await consumer.stop()
