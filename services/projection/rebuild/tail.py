"""Kafka's tail: which messages the records are about that were applied since a moment, and a few that were not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import UUID

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaTimeoutError
from aiokafka.structs import TopicPartition

from libs.bus.codec import message_id_of
from libs.service_kit.kafka import Cluster
from services.projection.store import Position

Positions = Mapping[TopicPartition, Position]

BATCH_RECORDS = 20_000
FETCH_MILLISECONDS = 10_000
"""There are records to come: if none does for so long, Kafka is in trouble."""


class Tail:
    """Reads on from where all was applied the last time. A partition that comes to be later is read from its beginning."""

    def __init__(self, consumer: AIOKafkaConsumer, applied: Positions) -> None:
        self._consumer = consumer
        self._read: dict[TopicPartition, int] = {}
        self._have_read(applied)

    def behind(self, applied: Positions) -> int:
        """How many records lie between what was read and what is applied now."""
        return sum(max(0, each.reached - self._read.get(partition, 0)) for partition, each in applied.items())

    async def message_ids(self, applied: Positions) -> AsyncIterator[set[UUID]]:
        """Whom the records are about that were applied since the last call, by batches; a message may be in several.

        Raises KafkaError.
        """
        consumer = self._consumer
        wanted = {p: each.reached for p, each in applied.items() if each.reached > self._read.get(p, 0)}
        if not wanted:
            return
        partitions = list(wanted)
        consumer.assign(partitions)
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        for partition in partitions:
            consumer.seek(partition, max(self._read.get(partition, 0), begins[partition]))
        while left := [p for p in partitions if await consumer.position(p) < min(wanted[p], ends[p])]:
            found = await consumer.getmany(*left, timeout_ms=FETCH_MILLISECONDS, max_records=BATCH_RECORDS)
            if not found:
                raise KafkaTimeoutError(f"no records within {FETCH_MILLISECONDS // 1000} s")
            # What can't be read was never applied: it is among the dead letters.
            about = (message_id_of(record.value) for records in found.values() for record in records)
            yield {message_id for message_id in about if message_id is not None}
        self._have_read(applied)

    def _have_read(self, applied: Positions) -> None:
        # What lies beyond may be applied later.
        self._read |= {partition: each.next_offset for partition, each in applied.items()}


@asynccontextmanager
async def open_tail(kafka: Cluster, applied: Positions) -> AsyncGenerator[Tail]:
    """The tail from these offsets on. Raises KafkaError when Kafka is not there."""
    consumer = AIOKafkaConsumer(**kafka.options(), client_id="rebuild-outbox", enable_auto_commit=False)
    try:
        await consumer.start()
        yield Tail(consumer, applied)
    finally:
        await consumer.stop()
