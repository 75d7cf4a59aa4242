"""One way to drive the bus, over a real broker or in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from libs.bus import consumer_lane
from libs.bus.admin import ensure_topics
from libs.bus.batch import Batch, Prepare
from libs.bus.codec import encode
from libs.bus.consumer import BatchConsumer
from libs.bus.kafka_source import KafkaSource
from libs.bus.memory import MemoryBus, MemorySource
from libs.bus.pacing import UNPACED, Pacing
from libs.bus.port import OnRebalance, OpenSource, Publisher, Topics
from libs.bus.producer import Producer
from libs.bus.record import Record
from libs.bus.stream import RecordStream, StreamOptions
from libs.contracts.events import ContactChanged, Event, PersonKind, UpstreamRecipient
from libs.contracts.topics import Topic
from libs.service_kit.kafka import Cluster

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
Handler = Callable[[Batch], Awaitable[None]]


def change(name: str, person: str = "17", source: str = "test") -> tuple[bytes, bytes]:
    """A record (key, value) on a contact topic; `name` tells it from the others."""
    data = ContactChanged(tenant="t", recipient=UpstreamRecipient(PersonKind.CLIENT, person), changed_at=NOW, name=name)
    event = Event(id=name, type=data.TYPE, source=source, time=NOW, subject=f"client/{person}", data=data)
    return f"t/client/{person}".encode(), encode(event)


def names(records: Sequence[Record]) -> list[str]:
    return [record.event.data.name for record in records]


class Handled:
    """A handler that remembers what it was given."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.batches: list[list[str]] = []

    async def __call__(self, batch: Batch) -> None:
        self.batches.append(names(batch.records))
        self.names += names(batch.records)


@dataclass
class Harness:
    cluster: Cluster
    producer: Publisher
    open_source: OpenSource
    memory: MemoryBus | None = None
    running: list[Any] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)

    @property
    def bootstrap(self) -> str:
        return self.cluster.bootstrap_servers

    async def topic(self, partitions: int = 1, suffix: str = "") -> Topic:
        topic = self.undeclared(partitions, suffix)
        await self.declare(topic)
        return topic

    def undeclared(self, partitions: int = 1, suffix: str = "") -> Topic:
        name = f"contacts.{uuid4().hex[:12]}{suffix}"
        return Topic(name=name, purpose="test", data=ContactChanged, key="person", partitions=partitions)

    async def declare(self, topic: Topic) -> None:
        if self.memory:
            self.memory.declare([topic])
        else:
            await ensure_topics(self.cluster, [topic])

    async def publish(self, topic: Topic, *wanted: str, person: str = "17") -> None:
        await self.producer.publish(topic.name, [change(name, person) for name in wanted])

    def group(self) -> str:
        return f"group.{uuid4().hex[:12]}"

    def consumer(
        self,
        topics: Topics,
        handler: Handler,
        group: str | None = None,
        *,
        prepare: Prepare | None = None,
        pacing: Pacing = UNPACED,
        **options: Any,
    ) -> BatchConsumer:
        consumer = BatchConsumer(
            self.cluster,
            group or self.group(),
            topics,
            handler,
            self.producer,
            prepare=prepare,
            pacing=pacing,
            options=StreamOptions(open_source=self.open_source, **options),
        )
        self.running.append(consumer)
        return consumer

    def stream(
        self, topics: Topics, group: str | None = None, on_revoked: OnRebalance | None = None, **options: Any
    ) -> RecordStream:
        made = StreamOptions(open_source=self.open_source, **options)
        stream = RecordStream(self.cluster, group or self.group(), topics, self.producer, on_revoked, made)
        self.running.append(stream)
        return stream

    def read_through(self, kind: type[MemorySource]) -> None:
        """Who begins to read from now on, in memory, does so through such a source."""
        memory = self.memory
        assert memory

        def opened(cluster: Cluster, *, rebalance_timeout_ms: int, **options: Any) -> MemorySource:
            return kind(memory, rebalance_timeout=rebalance_timeout_ms / 1000, **options)

        self.open_source = opened

    async def committed(self, group: str, topic: Topic) -> list[int | None]:
        """The committed offset of each partition."""
        partitions = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
        if self.memory:
            return [self.memory.committed.get((group, each)) for each in partitions]
        async with AIOKafkaConsumer(**self.cluster.options(), group_id=group, enable_auto_commit=False) as consumer:
            consumer.assign(partitions)
            return [await consumer.committed(each) for each in partitions]

    async def set_back(self, group: str, topic: Topic) -> None:
        """Set a group without members back to the beginning."""
        start = {TopicPartition(topic.name, number): 0 for number in range(topic.partitions)}
        if self.memory:
            self.memory.committed.update({(group, partition): 0 for partition in start})
            return
        async with AIOKafkaConsumer(**self.cluster.options(), group_id=group, enable_auto_commit=False) as consumer:
            consumer.assign(list(start))
            await consumer.commit(start)

    async def dead_letters(self, topic: Topic) -> list[ConsumerRecord]:
        return await self.stored(topic.dead_letter)

    async def stored(self, name: str, partition: int = 0) -> list[ConsumerRecord]:
        """Every record of a partition."""
        if self.memory:
            return [record for record in self.memory.records(name) if record.partition == partition]
        where = TopicPartition(name, partition)
        async with AIOKafkaConsumer(**self.cluster.options()) as consumer:
            consumer.assign([where])
            end = (await consumer.end_offsets([where]))[where]
            consumer.seek(where, 0)
            records: list[ConsumerRecord] = []
            while len(records) < end:
                for found in (await consumer.getmany(where, timeout_ms=1000)).values():
                    records += found
            return records

    async def close(self) -> None:
        await asyncio.gather(*(each.stop() for each in self.running))
        if isinstance(self.producer, Producer):
            await self.producer.stop()


async def open_harness(kafka: Cluster | str | None) -> Harness:
    """On a broker, or in memory."""
    if kafka is None:
        bus = MemoryBus()
        return Harness(Cluster(""), bus.producer(), bus.source, bus)
    cluster = Cluster(kafka) if isinstance(kafka, str) else kafka
    producer = Producer(cluster, "test")
    await producer.start()
    return Harness(cluster, producer, KafkaSource)


@pytest.fixture
async def bus(bootstrap: Cluster | str | None) -> AsyncIterator[Harness]:
    """Over the broker that the fixture `bootstrap` answers; None: in memory."""
    harness = await open_harness(bootstrap)
    yield harness
    await harness.close()


@pytest.fixture
def batches_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer's batches have two records at most."""
    monkeypatch.setattr(consumer_lane, "MAX_RECORDS", 2)
