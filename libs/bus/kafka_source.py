"""A member of a consumer group on Kafka, over aiokafka; it joins again by itself when Kafka was away or the client gave up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, cast

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import ConsumerStoppedError, KafkaError, UnknownTopicOrPartitionError
from aiokafka.structs import TopicPartition

from libs.bus.port import Found, Offsets, OnRebalance, Partitions, Topics, pattern_of
from libs.bus.unpacking import as_records
from libs.contracts.topics import DAY_MS, Topic
from libs.service_kit.backoff import delays
from libs.service_kit.kafka import Cluster

log = structlog.get_logger()

SESSION_TIMEOUT_MS = 6_000
"""After so long without a heartbeat a member is dead to its group: the least that brokers allow unless told otherwise."""
HEARTBEAT_INTERVAL_MS = 2_000
MAX_PARTITION_FETCH_BYTES = 1024 * 1024
METADATA_MAX_AGE_MS = 30_000
"""How soon a topic that matches a pattern is noticed."""
FETCH_MAX_WAIT_MS = 250
"""How long the broker may hold a fetch that finds nothing. Partitions that run out of records meanwhile are asked for with the next."""
COMMIT_SECONDS = 5.0
STOP_SECONDS = 5.0
LEAVE_SECONDS = 1.0
"""How long leaving the group may take when a stop was broken off after `STOP_SECONDS`."""


class KafkaSource(ConsumerRebalanceListener):
    """See `port.Source`. Heartbeats go on while a handler is at work, so a slow one keeps its partitions."""

    max_partition_fetch_bytes = MAX_PARTITION_FETCH_BYTES
    """How much of each partition is fetched ahead, compressed, and kept in memory while the consumer is behind."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        group: str,
        topics: Topics,
        on_revoked: OnRebalance,
        on_assigned: OnRebalance,
        rebalance_timeout_ms: int,
    ) -> None:
        self._cluster = cluster
        self._group = group
        self._topics = topics
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned
        self._rebalance_timeout_ms = rebalance_timeout_ms
        self._consumer: AIOKafkaConsumer | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._next: dict[TopicPartition, int] = {}
        """The next offset of each partition of which something was fetched since it was assigned."""
        self._rebalances = 0

    async def start(self) -> None:
        for delay in delays():
            consumer = self._make()
            try:
                await consumer.start()
                self._consumer = consumer
                return
            except (KafkaError, OSError) as error:
                log.warning("kafka.consumer_waits", group=self._group, error=type(error).__name__)
            finally:
                if self._consumer is not consumer:
                    await _close(consumer)
            await asyncio.sleep(delay)

    def _make(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            **self._cluster.options(),
            client_id=self._group,
            group_id=self._group,
            value_deserializer=as_records,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=self.max_partition_fetch_bytes,
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
            rebalance_timeout_ms=self._rebalance_timeout_ms,
            # The broker answers JoinGroup only when the others have drained; this must not time out before.
            request_timeout_ms=self._rebalance_timeout_ms + 10_000,
            # A batch that waits for Postgres to come back is not idle, however long that takes.
            max_poll_interval_ms=DAY_MS,
        )
        pattern = pattern_of(self._topics)
        if pattern is None:
            consumer.subscribe([topic.name for topic in self._topics if isinstance(topic, Topic)], listener=self)
        else:
            consumer.subscribe(pattern=pattern, listener=self)
        return consumer

    async def on_partitions_revoked(self, revoked: frozenset[TopicPartition]) -> None:
        self._rebalances += 1
        await self._on_revoked(frozenset(revoked))

    async def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> None:
        self._rebalances += 1
        self._next.clear()
        await self._on_assigned(frozenset(assigned))

    async def fetch(self, partitions: Partitions, *, timeout_ms: int, max_records: int) -> Found:
        consumer = self._started()
        self._end_rest()
        try:
            fetched = await consumer.getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)
            found = cast(Found, fetched)  # made by `as_records`
            if not found and _fetcher_died(consumer):
                raise KafkaError("the fetch task ended")
            rebalances = self._rebalances
            if lost := await self._find_lost(consumer, found):
                await self._rejoin(consumer, lost)
                return {}
            # What was fetched before a rebalance is not ours any more, or comes again.
            return found if self._rebalances == rebalances else {}
        except (KafkaError, ConsumerStoppedError, TimeoutError) as error:
            log.warning("kafka.consumer_rejoins", group=self._group, error=type(error).__name__)
            await self._rejoin(consumer)
            return {}

    async def _find_lost(self, consumer: AIOKafkaConsumer, found: Found) -> dict[TopicPartition, int]:
        """Compare the offsets that were fetched with those that should come next.

        If they are lower, Kafka has lost records that we had read, and gave their offsets to new ones: answers the first offset that was
        fetched of each such partition, from where it must be read anew. If they are higher because Kafka has deleted records before we
        read them, that is logged.
        """
        lost: dict[TopicPartition, int] = {}
        following: dict[TopicPartition, int] = {}
        rebalances = self._rebalances
        for partition, records in found.items():
            first, expected = records[0].offset, self._next.get(partition)
            if expected is None:
                expected = await consumer.committed(partition)
                if self._rebalances != rebalances:  # it is somebody else's by now, or begins anew
                    return {}
            following[partition] = records[-1].offset + 1
            if expected is None or first == expected:
                continue
            if first < expected:
                if partition not in self._next:  # refused if it is somebody else's by now, who has read on
                    await self._commit_to_kafka({partition: expected})
                log.error("kafka.records_lost: all that it has is read", **partition._asdict())
                lost[partition] = first
            elif (begin := (await consumer.beginning_offsets([partition]))[partition]) > expected:
                log.error("kafka.records_missed", **partition._asdict(), records=begin - expected)
        if self._rebalances != rebalances:
            return {}
        self._next.update(following)
        return lost

    async def _go_back_to(self, offsets: Offsets) -> None:
        """Have these partitions read from these offsets once the group is joined again. Raises KafkaError, TimeoutError."""
        await self._commit_to_kafka(offsets)

    def rest(self, seconds: float) -> None:
        # Else aiokafka fetches ahead at once and is answered as soon as one record is there, which then waits here for all of the pause.
        consumer = self._started()
        consumer.pause(*consumer.assignment())
        self._rest = asyncio.get_running_loop().call_later(seconds, self._end_rest)

    def _end_rest(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
            consumer = self._started()
            consumer.resume(*consumer.paused())

    async def _rejoin(self, consumer: AIOKafkaConsumer, back_to: Offsets | None = None) -> None:
        await self._on_revoked(consumer.assignment())
        if back_to:  # only now: `_on_revoked` commits higher offsets, of what was finished and is lost
            try:
                await self._go_back_to(back_to)
            except Exception as error:
                log.error("kafka.not_set_back", group=self._group, error=type(error).__name__)
        await _close(consumer)
        await asyncio.sleep(next(delays()))
        await self.start()

    async def commit(self, offsets: Offsets) -> None:
        await self._commit_to_kafka(offsets)

    async def _commit_to_kafka(self, offsets: Offsets) -> None:
        await _within(COMMIT_SECONDS, self._started().commit(dict(offsets)))

    async def lag_bounds(self) -> Mapping[TopicPartition, tuple[int, int]]:
        consumer = self._started()
        require_topics(consumer)
        async with asyncio.timeout(COMMIT_SECONDS):
            ends = await consumer.end_offsets(consumer.assignment())
            return {partition: (await consumer.position(partition), end) for partition, end in ends.items()}

    def assignment(self) -> Partitions:
        return frozenset(self._consumer.assignment()) if self._consumer else frozenset()

    async def stop(self) -> None:
        if self._consumer is not None:
            self._end_rest()
            await _close(self._consumer)

    def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise RuntimeError("the source is not started")
        return self._consumer


def require_topics(consumer: AIOKafkaConsumer) -> None:
    """Raises UnknownTopicOrPartitionError where Kafka lacks a topic that it reads: then nobody has partitions of it, which is not to be
    taken for others having them all."""
    topics = consumer.subscription()
    if not topics or not all(map(consumer.partitions_for_topic, topics)):
        raise UnknownTopicOrPartitionError


async def _close(consumer: AIOKafkaConsumer) -> None:
    """Leave the group. A join under way, or partitions that are being given back, are not waited for longer than a few seconds."""
    try:
        await _within(STOP_SECONDS, consumer.stop())
    except TimeoutError:
        # Its heartbeats would go on, and the group would wait for it until the rebalance timeout.
        with suppress(KafkaError, OSError, TimeoutError):
            await _within(LEAVE_SECONDS, _leave(consumer))
    except (KafkaError, OSError):
        pass


async def _within(seconds: float, work: Coroutine[object, object, object]) -> None:
    """Raises TimeoutError after so many seconds, also in a task that was cancelled, and commits and leaves at its end. There
    `asyncio.timeout` of Python 3.11.2 raises CancelledError instead, and nothing that should follow is done."""
    await asyncio.wait_for(work, seconds)


async def _leave(consumer: AIOKafkaConsumer) -> None:
    """The steps of aiokafka's stop that it may not have come to when it was broken off."""
    own: dict[str, Any] = vars(consumer)
    if (coordinator := own["_coordinator"]) is not None:
        await coordinator._stop_heartbeat_task()
        await coordinator._stop_commit_offsets_refresh_task()
        await coordinator._maybe_leave_group()
    if (fetcher := own["_fetcher"]) is not None:
        await fetcher.close()
    await own["_client"].close()


def _fetcher_died(consumer: AIOKafkaConsumer) -> bool:
    """aiokafka does not say when its fetch task has ended by an error; the consumer would find nothing for ever."""
    fetcher: Any = vars(consumer)["_fetcher"]
    return fetcher.error_future.done()
