"""Whether the group has consumed all that was there some time ago: until then, what it has not seen may still be on its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from libs.contracts.topics import Topic


class Progress:
    """The committed offsets of all replicas, against the ends that were found when it was last asked."""

    def __init__(self, bootstrap_servers: str, group: str, topics: Sequence[Topic]) -> None:
        self._partitions = [TopicPartition(t.name, p) for t in topics for p in range(t.partitions)]
        # It names the group to read its offsets, and joins nothing: partitions are assigned, and none is fetched.
        self._consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=group, enable_auto_commit=False)
        self._ends: Mapping[TopicPartition, int] | None = None

    async def start(self) -> None:
        await self._consumer.start()

    async def stop(self) -> None:
        await self._consumer.stop()

    async def caught_up(self) -> bool:
        """Whether what Kafka held at the call before is all committed; False at the first. Raises KafkaError, or TimeoutError."""
        before, self._ends = self._ends, await self._consumer.end_offsets(self._partitions)
        if before is None:
            return False
        for partition, end in before.items():
            if end and (await self._consumer.committed(partition) or 0) < end:
                return False
        return True
