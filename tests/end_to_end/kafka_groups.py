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

    async def lag(self) -> int:
        """Records that some group has not finished, over all groups.

        What was committed is read before the ends, and services publish before they commit: so 0 says that nothing is under way.
        """
        committed = [await self.committed(group) for group in await self.names()]
        partitions = {partition for offsets in committed for partition in offsets}
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap_servers)
        await consumer.start()
        try:
            ends = await consumer.end_offsets(list(partitions))
        finally:
            await consumer.stop()
        return sum(ends[partition] - offset for offsets in committed for partition, offset in offsets.items())

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
