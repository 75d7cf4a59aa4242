"""The resolver as the process that it is, and what goes in and comes out of it on Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import aiohttp
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from deploy.local.ports import free_port
from libs.bus.codec import decoder, encode
from libs.bus.port import Outgoing
from libs.bus.producer import Producer
from libs.contracts import topics
from libs.contracts.events import ContactChanged, Event, MessageEvent, SmsCommand, SmsRequested, SmsReturned, person_key
from libs.contracts.topics import Topic
from libs.service_kit.internal import HEADER, TENANT_HEADER
from services.resolver.main import MESSAGES
from tests.services.program import TOKEN, ServiceProgram, until

CONFIGURATION = """
gateways:
  - {id: demo, type: smpp, host: 127.0.0.1, port: 2775, systemId: demo, sourceAddress: BANK}
defaultGateway: demo
defaultRegion: KE
"""
DISPATCHED = (topics.dispatch("demo"), topics.dispatch("demo", topics.Priority.HIGH))
OUT = (*DISPATCHED, topics.STATUS, topics.DEFERRED)


class Program(ServiceProgram):
    """The resolver."""

    SERVICE = "resolver"
    CONFIGURATION = CONFIGURATION
    ENVIRONMENT: ClassVar[dict[str, str]] = {"PROJECTION_URL": f"http://127.0.0.1:{free_port()}"}

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
        dead = [(t.dead_letter, 1) for t in (*MESSAGES, topics.COMMANDS, topics.CONTACT_CHANGED)]
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

    async def command(self, *commands: MessageEvent[SmsCommand]) -> None:
        records = [(person_key(c.data.tenant, c.data.recipient), encode(c)) for c in commands]
        await self._producer.publish(topics.COMMANDS.name, records)

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
