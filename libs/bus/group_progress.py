"""How far a consumer group has come: what all its members have committed, against the ends of its topics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from libs.contracts.topics import Topic

Offsets = Mapping[TopicPartition, int]

TIMEOUT_SECONDS = 5.0


class GroupProgress:
    """Reads offsets only. Every call raises KafkaError or TimeoutError while Kafka is away, after 5 s at the latest."""

    def __init__(self, bootstrap_servers: str, group: str, topics: Sequence[Topic]) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._group = group
        self._partitions = [TopicPartition(t.name, p) for t in topics for p in range(t.partitions)]
        self._consumer: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        # It names the group to read its offsets, and joins nothing: no topic is subscribed to, and nothing fetched.
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap_servers, group_id=self._group, enable_auto_commit=False
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
        """The offsets after the last records that there are now."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await self._started.end_offsets(self._partitions)

    async def behind(self, ends: Offsets) -> int:
        """How many records before these ends the group has not committed. What is past its retention counts no more: nobody can
        read it."""
        consumer = self._started
        async with asyncio.timeout(TIMEOUT_SECONDS):
            begins = await consumer.beginning_offsets(list(ends))
            committed = await asyncio.gather(*(consumer.committed(partition) for partition in ends))
        return sum(
            max(0, end - max(begins[partition], offset or 0))
            for (partition, end), offset in zip(ends.items(), committed, strict=True)
        )

    @property
    def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise RuntimeError("not started")
        return self._consumer
