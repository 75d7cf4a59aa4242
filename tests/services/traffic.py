"""What goes in and comes out of a service on Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from libs.bus.admin import DEAD_LETTER_PARTITIONS
from libs.bus.producer import Producer
from libs.contracts.topics import Topic
from libs.service_kit.kafka import Cluster


async def commit(kafka: str, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Say to Kafka that a group, which has no members now, is there."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False)
    await consumer.start()
    consumer.assign(list(offsets))
    await consumer.commit(offsets)
    await consumer.stop()


class ServiceTraffic:
    """Publishes what a service reads, and collects what it writes, dead letters included, from the beginning."""

    READ: ClassVar[Sequence[Topic]]
    WRITTEN: ClassVar[Sequence[Topic]]

    def __init__(self, kafka: str) -> None:
        self.kafka = kafka
        self.producer = Producer(Cluster(kafka), client_id="test")
        self.records: list[ConsumerRecord] = []
        self._consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.producer.start()
        await self._consumer.start()
        dead = [TopicPartition(t.dead_letter, p) for t in self.READ for p in range(DEAD_LETTER_PARTITIONS)]
        self._consumer.assign(_partitions(self.WRITTEN) + dead)
        self._reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        await self._consumer.stop()
        await self.producer.stop()

    async def _read(self) -> None:
        async for record in self._consumer:
            self.records.append(record)

    async def raw(self, topic: Topic, *values: bytes) -> None:
        await self.producer.publish(topic.name, [(b"acme/client/1", value) for value in values])

    def of(self, topic: Topic) -> list[ConsumerRecord]:
        return [r for r in self.records if r.topic == topic.name]

    def dead(self, topic: Topic) -> list[ConsumerRecord]:
        return [r for r in self.records if r.topic == topic.dead_letter]

    async def set_back(self, group: str, read: Sequence[Topic]) -> None:
        """Set a group without members back to the beginning of what it reads."""
        await commit(self.kafka, group, dict.fromkeys(_partitions(read), 0))


def _partitions(topics: Sequence[Topic]) -> list[TopicPartition]:
    return [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
