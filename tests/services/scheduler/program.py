"""The scheduler as the process that it is, and what goes in and comes out of it on Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import aiohttp
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from libs.bus.codec import decoder, encode
from libs.bus.port import Outgoing
from libs.bus.producer import Producer
from libs.contracts import topics
from libs.contracts.events import MessageEvent, SmsCommand, SmsDeferred, person_key
from libs.contracts.topics import Topic
from services.scheduler.main import CONSUMED
from tests.services.program import ServiceProgram

OUT = (topics.RETURNED, topics.STATUS)


class Program(ServiceProgram):
    """The scheduler."""

    SERVICE = "scheduler"
    ENVIRONMENT: ClassVar[dict[str, str]] = {"SCHEDULER_LEASE_SECONDS": "1"}


class HeldBack(Program):
    """With room for ten before the resolver."""

    ENVIRONMENT: ClassVar[dict[str, str]] = {"SCHEDULER_WAITING_RECORDS": "10"}

    async def metric(self, name: str) -> float:
        """The value of a gauge."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}/metrics") as response,
        ):
            lines = (await response.text()).splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


class Traffic:
    """Publishes what the scheduler reads, and collects what it writes, dead letters included, from the beginning."""

    def __init__(self, kafka: str) -> None:
        self._kafka = kafka
        self._producer = Producer(kafka, client_id="test")
        self._consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
        self._reading: asyncio.Task[None] | None = None
        self.records: list[ConsumerRecord] = []

    async def start(self) -> None:
        await self._producer.start()
        await self._consumer.start()
        read = [(t.name, t.partitions) for t in OUT] + [(t.dead_letter, 1) for t in CONSUMED]
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

    async def say(self, *events: MessageEvent[SmsDeferred] | MessageEvent[SmsCommand]) -> None:
        await self._producer.publish_many([_outgoing(event) for event in events])

    async def raw(self, topic: Topic, *values: bytes) -> None:
        await self._producer.publish(topic.name, [(b"acme/client/1", value) for value in values])

    def dead(self, topic: Topic) -> Sequence[ConsumerRecord]:
        return [r for r in self.records if r.topic == topic.dead_letter]

    def about(self, *causes: MessageEvent[Any]) -> list[tuple[ConsumerRecord, MessageEvent[Any]]]:
        """What was said of these messages, duplicates included, in the order of each partition."""
        read = {topic.name: decoder(topic) for topic in OUT}
        subjects = {cause.subject for cause in causes}
        events = [(r, read[r.topic](r.value)) for r in self.records if r.topic in read]
        return [(r, e) for r, e in events if e.subject in subjects]

    async def set_back(self, *groups: str) -> None:
        """Set groups without members back to the beginning."""
        partitions = [TopicPartition(t.name, p) for t in CONSUMED for p in range(t.partitions)]
        for group in groups:
            await self.commit(group, dict.fromkeys(partitions, 0))

    async def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """For a group without members."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._kafka, group_id=group, enable_auto_commit=False)
        await consumer.start()
        consumer.assign(list(offsets))
        await consumer.commit(offsets)
        await consumer.stop()


def _outgoing(event: MessageEvent[SmsDeferred] | MessageEvent[SmsCommand]) -> Outgoing:
    data = event.data
    if isinstance(data, SmsDeferred):
        return Outgoing(topics.DEFERRED.name, person_key(data.message.tenant, data.message.recipient), encode(event))
    return Outgoing(topics.COMMANDS.name, person_key(data.tenant, data.recipient), encode(event))
