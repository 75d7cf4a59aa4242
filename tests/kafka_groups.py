"""Consumer groups as an operator sees them: who is in, how far they are, back to the beginning."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

Offsets = dict[TopicPartition, int]


class Groups:
    """All consumer groups of one broker."""

    def __init__(self, bootstrap_servers: str, admin: AIOKafkaAdminClient) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._admin = admin

    async def names(self) -> list[str]:
        return sorted(name for name, _ in await self._admin.list_consumer_groups())

    async def members(self, group: str) -> int | None:
        """How many have joined; None during a rebalance."""
        [answer] = await self._admin.describe_consumer_groups([group])
        [(_, _, state, _, _, members, *_)] = answer.groups
        return len(members) if state in ("Stable", "Empty") else None

    async def committed(self, group: str) -> Offsets:
        found = await self._admin.list_consumer_group_offsets(group)
        return {partition: stored.offset for partition, stored in found.items()}

    async def lag(self) -> dict[str, int]:
        """Records that each group has not finished, by group and partition; only where there are any.

        What was committed is read before the ends, and services publish before they commit: so none says that nothing is under way.
        """
        committed = {name: await self.committed(name) for name in await self.names()}
        partitions = {partition for offsets in committed.values() for partition in offsets}
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap_servers)
        await consumer.start()
        try:
            ends = await consumer.end_offsets(list(partitions))
        finally:
            await consumer.stop()
        return {
            f"{group} {partition.topic}/{partition.partition}": left
            for group, offsets in committed.items()
            for partition, offset in offsets.items()
            if (left := ends[partition] - max(offset, 0)) > 0  # -1: nothing was committed there
        }

    async def rewind(self, group: str) -> None:
        """Set a group that has no members back to the beginning."""
        offsets = await self.committed(group)
        if not offsets:
            return  # it never got anywhere
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap_servers, group_id=group, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign(list(offsets))
            await consumer.commit(await consumer.beginning_offsets(list(offsets)))
        finally:
            await consumer.stop()


@asynccontextmanager
async def groups_of(bootstrap_servers: str) -> AsyncIterator[Groups]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        yield Groups(bootstrap_servers, admin)
    finally:
        await admin.close()
