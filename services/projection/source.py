"""A member of the consumer group whose positions are those stored in Postgres, whatever Kafka has as committed.

The transaction that folds a batch stores them; Kafka is told afterwards, for tools that show the lag and for the resolver. It is told
at the beginning too: a crash between the two would leave a partition behind for as long as nothing comes in it.
"""

from __future__ import annotations

import asyncio

import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from libs.bus.kafka_source import KafkaSource
from libs.bus.port import Found, Offsets, OnRebalance, Partitions, Topics
from libs.service_kit.kafka import Cluster
from libs.service_kit.transient import is_transient
from libs.storage.database import Pool
from services.projection import store

log = structlog.get_logger()

POSTGRES_SECONDS = 5.0
"""How long a rebalance or a stop may wait for Postgres, whose connection a batch may still hold."""


class StoredOffsetsSource(KafkaSource):
    """See the top of this file; `pool` is where the positions are. A partition that nothing is stored of is read from its beginning."""

    # Less than elsewhere, since it reads the partitions of every topic. Those of one topic still fill a batch, so that a backlog is read
    # without pauses.
    max_partition_fetch_bytes = 256 * 1024

    def __init__(
        self,
        cluster: Cluster,
        *,
        pool: Pool,
        group: str,
        topics: Topics,
        on_revoked: OnRebalance,
        on_assigned: OnRebalance,
        rebalance_timeout_ms: int,
    ) -> None:
        super().__init__(
            cluster,
            group=group,
            topics=topics,
            on_revoked=on_revoked,
            on_assigned=on_assigned,
            rebalance_timeout_ms=rebalance_timeout_ms,
        )
        self._pool = pool
        self._unsought: Partitions = frozenset()
        """Those assigned to us, as long as we have not gone to the positions stored of them."""
        self._untold: dict[TopicPartition, int] = {}
        """Positions gone to, of which Kafka does not know yet."""

    async def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> None:
        self._unsought = frozenset(assigned)
        self._untold = {}
        await super().on_partitions_assigned(assigned)

    async def fetch(self, partitions: Partitions, *, timeout_ms: int, max_records: int) -> Found:
        if self._unsought and not await self._seek(self._unsought):
            return {}
        found = await super().fetch(partitions, timeout_ms=timeout_ms, max_records=max_records)
        # Assigned anew while it waited: these may come from where Kafka believes us to be, and we have yet to go to where we are.
        return {} if self._unsought else found

    async def _seek(self, partitions: Partitions) -> bool:
        """Go to the stored positions. False if they can't be read now, or the assignment has changed meanwhile."""
        consumer = self._started()
        try:
            async with self._pool.acquire(timeout=POSTGRES_SECONDS) as connection:
                stored = await store.read_positions(connection)
            ends = await consumer.end_offsets(partitions)  # after them: until then a former owner may still store some
            for partition in partitions & stored.keys():
                # Kafka has lost what it had there: what it has now was not applied.
                if stored[partition].next_offset > ends[partition]:
                    log.error("kafka.records_lost: all that it has is read", **partition._asdict())
                    await self._forget(partition)
                    del stored[partition]
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("stored offsets can't be read", reason=type(error).__name__)
            await asyncio.sleep(1)
            return False
        # A new topic of the pattern takes all away at once, before it is assigned anew.
        if self._unsought is not partitions or not partitions <= consumer.assignment():
            return False
        self._untold = {
            partition: stored[partition].next_offset if partition in stored else 0 for partition in partitions
        }
        self._next.clear()  # what came since the assignment came from where Kafka believed us to be
        for partition, offset in self._untold.items():
            consumer.seek(partition, offset)
            if partition in stored:
                self._next[partition] = offset
        self._unsought = frozenset()
        try:
            await self._tell({})
        except (KafkaError, TimeoutError) as error:
            log.warning("stored offsets not committed", error=type(error).__name__)
        return True

    async def _go_back_to(self, offsets: Offsets) -> None:
        """Raises asyncpg's errors too."""
        for partition in offsets:
            await self._forget(partition)
        await super()._go_back_to(offsets)

    async def _forget(self, partition: TopicPartition) -> None:
        async with self._pool.acquire(timeout=POSTGRES_SECONDS) as connection:
            await store.forget_position(connection, partition)

    async def _tell(self, offsets: Offsets) -> None:
        """Commit these to Kafka, with what it does not know yet."""
        untold = self._untold
        await self._commit_to_kafka({**untold, **offsets})
        if self._untold is untold:
            self._untold = {}

    async def commit(self, offsets: Offsets) -> None:
        """Also stores offsets that no transaction has: a partition may end in records that went to the dead letters."""
        try:
            await asyncio.wait_for(self._store(offsets), POSTGRES_SECONDS)
        except Exception as error:
            if not is_transient(error):
                raise
            raise TimeoutError("Postgres is away") from error
        await self._tell(offsets)

    async def _store(self, offsets: Offsets) -> None:
        positions = {partition: store.Position(offset, offset) for partition, offset in offsets.items()}
        async with self._pool.acquire() as connection:
            await store.write_positions(connection, positions)
