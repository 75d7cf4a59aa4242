"""How far a consumer group has come: what all its members have committed, against the ends of its topics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from libs.bus.offsets_reader import OffsetsReader
from libs.bus.port import Offsets
from libs.contracts.topics import Topic
from libs.service_kit.kafka import Cluster

TIMEOUT_SECONDS = 5.0


class GroupProgress:
    """Reads offsets only. Every call raises KafkaError, OSError or TimeoutError while Kafka is away, after 5 s at the latest."""

    def __init__(self, cluster: Cluster, group: str, topics: Sequence[Topic]) -> None:
        self._partitions = [TopicPartition(t.name, p) for t in topics for p in range(t.partitions)]
        self._reader = OffsetsReader(cluster, client_id=f"{group}-progress", seconds=TIMEOUT_SECONDS, group=group)

    async def start(self) -> None:
        await self._reader.start()

    async def stop(self) -> None:
        await self._reader.stop()

    async def ends(self) -> Offsets:
        """The offsets after the last records that there are now."""
        return await self._reader.ask(lambda consumer: consumer.end_offsets(self._partitions))

    async def behind(self, ends: Offsets) -> int:
        """How many records before these ends the group has not committed. What is past its retention counts no more: nobody can
        read it."""

        async def begins_and_committed(consumer: AIOKafkaConsumer) -> tuple[Offsets, list[int | None]]:
            begins = await consumer.beginning_offsets(list(ends))
            return begins, await asyncio.gather(*(consumer.committed(partition) for partition in ends))

        begins, committed = await self._reader.ask(begins_and_committed)
        return sum(
            max(0, end - max(begins[partition], offset or 0))
            for (partition, end), offset in zip(ends.items(), committed, strict=True)
        )
