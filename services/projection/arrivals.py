"""Whether the outbox has come as far as Kafka had when somebody asked: only then is a message that is not there known not to be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from libs.contracts.topics import REQUESTED, REQUESTED_HIGH
from libs.storage.database import Pool
from services.projection import store

T = TypeVar("T")

Offsets = Mapping[TopicPartition, int]
_FIRST = (REQUESTED, REQUESTED_HIGH)
"""Where every message is first heard of."""
_PARTITIONS = [TopicPartition(topic.name, number) for topic in _FIRST for number in range(topic.partitions)]
_TIMEOUT_MS = 2_000


class Arrivals:
    """Compares Kafka's ends with the stored offsets, of whichever replica. However many ask, one request of each kind is under way."""

    def __init__(self, bootstrap_servers: str, pool: Pool) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._pool = pool
        self._consumer: AIOKafkaConsumer | None = None
        self._ends = _Shared(self._read_ends)
        self._applied = _Shared(self._read_applied)

    async def start(self) -> None:
        """Connect to Kafka. Raises KafkaError while it is away."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap_servers,
            client_id="projection-reads",
            enable_auto_commit=False,
            request_timeout_ms=_TIMEOUT_MS,
        )
        try:
            await consumer.start()
        except BaseException:
            await consumer.stop()
            raise
        self._consumer = consumer

    async def stop(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    async def ends(self) -> Offsets:
        """What Kafka holds now: the offsets after the last requests. Raises KafkaError, or TimeoutError."""
        return await self._ends.get()

    async def passed(self, ends: Offsets) -> bool:
        """Whether everything before these offsets is in the outbox."""
        applied = await self._applied.get()
        return all(applied.get(partition, 0) >= end for partition, end in ends.items())

    async def _read_ends(self) -> Offsets:
        if self._consumer is None:
            raise RuntimeError("not started")
        async with asyncio.timeout(_TIMEOUT_MS / 1000):
            beginnings = await self._consumer.beginning_offsets(_PARTITIONS)
            ends = await self._consumer.end_offsets(_PARTITIONS)
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
        return await asyncio.shield(self._next)

    async def _after(self, current: asyncio.Task[T] | None) -> T:
        if current is not None:
            await asyncio.wait([current])
        self._current, self._next = self._next, None
        return await self._call()
