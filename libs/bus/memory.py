"""A broker in memory, so that handlers and consumers can be tested without one: partitions, offsets, consumer groups, eager rebalances.

    bus = MemoryBus()
    options = StreamOptions(open_source=bus.source)
    consumer = BatchConsumer(Cluster(""), "resolver", [REQUESTED], handle, bus.producer(), options=options)

It shows what Kafka shows: records come again from the committed offset after a member left without committing, a rebalance takes all
partitions from all members of the group first, a commit by one who is no longer a member is refused. Topics exist once they are declared
(`bus.declare(topics)`), or once a source or a record names them, with as many partitions as declared (1 if undeclared).
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import count

from aiokafka.errors import CommitFailedError
from aiokafka.structs import ConsumerRecord, TopicPartition

from libs.bus.errors import PublishFailed
from libs.bus.partitioning import partition_of
from libs.bus.port import Found, KeyValue, Offsets, OnRebalance, Outgoing, Partitions, TopicFamily, Topics
from libs.bus.record import CLOUDEVENTS, Record
from libs.contracts.topics import Topic
from libs.service_kit.kafka import Cluster


class MemoryBus:
    """One broker. `available` can be set to False to see what happens when it is away."""

    def __init__(self) -> None:
        self.available = True
        self.committed: dict[tuple[str, TopicPartition], int] = {}
        self._logs: dict[str, list[list[ConsumerRecord[bytes, bytes]]]] = {}
        self._groups: dict[str, _Group] = defaultdict(_Group)
        self._arrival = asyncio.Event()
        self._round_robin = count()

    def declare(self, topics: Iterable[Topic]) -> None:
        """Make the topics with their partitions."""
        for topic in topics:
            self._logs.setdefault(topic.name, [[] for _ in range(topic.partitions)])

    def producer(self) -> MemoryProducer:
        return MemoryProducer(self)

    def source(
        self,
        cluster: Cluster | None = None,
        *,
        group: str,
        topics: Topics,
        on_revoked: OnRebalance,
        on_assigned: OnRebalance,
        rebalance_timeout_ms: int,
    ) -> MemorySource:
        """A member of the group; `port.OpenSource`."""
        self.declare(topic for topic in topics if isinstance(topic, Topic))
        return MemorySource(self, group, topics, on_revoked, on_assigned, rebalance_timeout_ms / 1000)

    def records(self, topic: str) -> list[ConsumerRecord[bytes, bytes]]:
        """Everything published to a topic, by partition."""
        return [record for partition in self._logs.get(topic, []) for record in partition]

    def append(self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> None:
        """Store one record."""
        partitions = self._logs.setdefault(topic, [[]])
        chosen = next(self._round_robin) % len(partitions) if key is None else partition_of(key, len(partitions))
        rows = partitions[chosen]
        rows.append(ConsumerRecord(topic, chosen, len(rows), _now_ms(), 0, key, value, None, 0, 0, tuple(headers)))
        self._arrival.set()
        self._arrival = asyncio.Event()

    def read(self, partition: TopicPartition, offset: int, most: int) -> list[Record]:
        rows = self._logs[partition.topic][partition.partition][offset : offset + most]
        return [Record(partition, row.offset, row.key, row.value, row.headers) for row in rows]

    def end(self, partition: TopicPartition) -> int:
        return len(self._logs[partition.topic][partition.partition])

    def arrival(self) -> asyncio.Event:
        """Set with the next record."""
        return self._arrival

    def group(self, name: str) -> _Group:
        return self._groups[name]

    def partitions_of(self, topics: Topics) -> list[TopicPartition]:
        names = [name for name in self._logs if any(_matches(topic, name) for topic in topics)]
        return [TopicPartition(name, number) for name in sorted(names) for number in range(len(self._logs[name]))]


class MemoryProducer:
    """See `port.Publisher`. `published` counts calls."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self.published = 0

    async def publish(self, topic: str, records: Sequence[KeyValue]) -> None:
        await self.publish_many([Outgoing(topic, key, value) for key, value in records])

    async def publish_many(self, records: Sequence[Outgoing]) -> None:
        if not self._bus.available:
            raise PublishFailed("the broker is away")
        self.published += 1
        for record in records:
            self._bus.append(
                record.topic, record.key, record.value, CLOUDEVENTS if record.headers is None else record.headers
            )
        await asyncio.sleep(0)


class _Group:
    """The members of a consumer group; one rebalance at a time."""

    def __init__(self) -> None:
        self.members: list[MemorySource] = []
        self.lock = asyncio.Lock()

    async def rebalance(self, bus: MemoryBus) -> None:
        async with self.lock:
            members = list(self.members)
            await asyncio.gather(*(member.revoke() for member in members))
            for member in members:
                topics = bus.partitions_of(member.topics)
                shares = [each for each in members if set(bus.partitions_of(each.topics)) & set(topics)]
                mine = topics[shares.index(member) :: len(shares)] if topics else []
                member.positions = {tp: bus.committed.get((member.group, tp), 0) for tp in mine}
            for member in members:
                await member.assigned()


class MemorySource:
    """See `port.Source`."""

    def __init__(
        self,
        bus: MemoryBus,
        group: str,
        topics: Topics,
        on_revoked: OnRebalance,
        on_assigned: OnRebalance,
        rebalance_timeout: float,
    ) -> None:
        self.group = group
        self.topics = topics
        self.positions: dict[TopicPartition, int] = {}
        self._bus = bus
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned
        self._rebalance_timeout = rebalance_timeout
        self._stable = asyncio.Event()
        self._member = False

    async def start(self) -> None:
        self._member = True
        group = self._bus.group(self.group)
        group.members.append(self)
        await group.rebalance(self._bus)

    async def stop(self) -> None:
        if self._member:
            self.crash()
            await self._bus.group(self.group).rebalance(self._bus)

    def crash(self) -> None:
        """Vanish, as a killed process does; the others are told with the next rebalance."""
        self._member = False
        self._stable.clear()
        self.positions = {}
        self._bus.group(self.group).members.remove(self)

    async def revoke(self) -> None:
        """Called by the group: wait for the member's callback, but no longer than the rebalance timeout."""
        self._stable.clear()
        try:
            async with asyncio.timeout(self._rebalance_timeout):
                await self._on_revoked(self.assignment())
        except TimeoutError:
            pass  # the group goes on without it, as Kafka does
        self.positions = {}

    async def assigned(self) -> None:
        self._stable.set()
        await self._on_assigned(self.assignment())

    async def fetch(self, partitions: Partitions, *, timeout_ms: int, max_records: int) -> Found:
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            await self._stable.wait()
            found: dict[TopicPartition, list[Record]] = {}
            for partition, position in self.positions.items():
                rows = (partition in partitions or not partitions) and max_records > 0 and self._bus.available
                records = self._bus.read(partition, position, max_records) if rows else []
                if records:
                    found[partition] = records
                    max_records -= len(records)
                    self.positions[partition] = position + len(records)
            arrival = self._bus.arrival()
            if found or time.monotonic() >= deadline:
                return found
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await arrival.wait()
            except TimeoutError:
                return {}

    def rest(self, seconds: float) -> None:
        """There is no broker to be spared."""

    async def commit(self, offsets: Offsets) -> None:
        await asyncio.sleep(0)
        if not self._bus.available:
            raise TimeoutError
        if not self._member or not offsets.keys() <= self.positions.keys():
            raise CommitFailedError
        for partition, offset in offsets.items():
            self._bus.committed[self.group, partition] = offset

    async def lag_bounds(self) -> Mapping[TopicPartition, tuple[int, int]]:
        return {partition: (position, self._bus.end(partition)) for partition, position in self.positions.items()}

    def assignment(self) -> Partitions:
        return frozenset(self.positions)


def _matches(topic: Topic | TopicFamily, name: str) -> bool:
    return topic.topic(name) is not None if isinstance(topic, TopicFamily) else topic.name == name


def _now_ms() -> int:
    return int(time.time() * 1000)
