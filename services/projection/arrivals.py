"""Whether the outbox has come as far as Kafka had when somebody asked: only then is a message that is not there known not to be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from libs.bus.offsets_reader import OffsetsReader
from libs.bus.port import Offsets
from libs.contracts.topics import REQUESTED, REQUESTED_HIGH
from libs.service_kit.kafka import Cluster
from libs.storage.database import Pool
from services.projection import store

T = TypeVar("T")

_FIRST = (REQUESTED, REQUESTED_HIGH)
"""Where every message is first heard of."""
_PARTITIONS = [TopicPartition(topic.name, number) for topic in _FIRST for number in range(topic.partitions)]
TIMEOUT_SECONDS = 2.0


class Arrivals:
    """Compares Kafka's ends with the stored offsets, of whichever replica. However many ask, one request of each kind is under way."""

    def __init__(self, cluster: Cluster, pool: Pool) -> None:
        self._pool = pool
        self._reader = OffsetsReader(cluster, client_id="projection-reads", seconds=TIMEOUT_SECONDS)
        self._ends = _Shared(self._read_ends)
        self._applied = _Shared(self._read_applied)

    async def start(self) -> None:
        """Connect to Kafka. Raises KafkaError or OSError while it is away."""
        await self._reader.start()

    async def stop(self) -> None:
        await self._reader.stop()

    async def ends(self) -> Offsets:
        """What Kafka holds now: the offsets after the last requests. Raises KafkaError, OSError, or TimeoutError."""
        return await self._ends.get()

    async def passed(self, ends: Offsets) -> bool:
        """Whether everything before these offsets is in the outbox."""
        applied = await self._applied.get()
        return all(applied.get(partition, 0) >= end for partition, end in ends.items())

    async def _read_ends(self) -> Offsets:
        async def beginnings_and_ends(consumer: AIOKafkaConsumer) -> tuple[Offsets, Offsets]:
            return await consumer.beginning_offsets(_PARTITIONS), await consumer.end_offsets(_PARTITIONS)

        beginnings, ends = await self._reader.ask(beginnings_and_ends)
        # What is past its retention can't be applied any more, and is not waited for.
        return {partition: end for partition, end in ends.items() if end > beginnings[partition]}

    async def _read_applied(self) -> Offsets:
        async with self._pool.acquire() as connection:
            positions = await store.read_positions(connection)
        return {partition: position.next_offset for partition, position in positions.items()}


class _Shared(Generic[T]):
    """One call at a time, and each answers all who asked before it began."""

    def __init__(self, call: Callable[[], Awaitable[T]]) -> None:
        self._call = call
        self._current: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    async def get(self) -> T:
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._current))
            # All who ask may have given up when it fails: asyncio would log that as an exception that nobody retrieved.
            self._next.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._next)

    async def _after(self, current: asyncio.Task[T] | None) -> T:
        if current is not None:
            await asyncio.wait([current])
        self._current, self._next = self._next, None
        return await self._call()
