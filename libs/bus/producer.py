"""The one way to publish: idempotent, `acks=all`, in closed batches of our own, in order per partition.

Each partition of a topic has a lane: a queue and one task that sends its head as one batch of at most 512 KiB, waits for the
acknowledgement, and sends the next. So records with one key are stored in the order in which their `publish` calls were admitted, also
when these run at once, and the more callers wait the larger the batches grow. A call that failed is repeated by its
caller behind what was published meanwhile: order is promised among calls that succeed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import structlog
from aiokafka.errors import KafkaError

from libs.bus.errors import PublishFailed, RecordTooLarge
from libs.bus.partitioning import partition_of
from libs.bus.port import KeyValue, Outgoing
from libs.bus.producer_connection import REFUSED, Connection
from libs.bus.producer_lane import Call, Lane, Part, Row
from libs.bus.record import CLOUDEVENTS
from libs.contracts.topics import DEAD_LETTER
from libs.service_kit.kafka import Cluster

log = structlog.get_logger()

MAX_RECORD_BYTES = 2 * 1024 * 1024 - 4096
"""What a topic takes (`max.message.bytes` in the contracts), less what a batch adds."""
MAX_DEAD_LETTER_BYTES = MAX_RECORD_BYTES + 64 * 1024
"""A dead letter is a record with more headers."""
_RECORD_OVERHEAD = 64  # lengths, offsets, the one header: what a record takes beside key and value


class Producer:
    """Publishes records. One per process; safe to use from any number of tasks.

    `delivery_timeout` is how long, in seconds, a call may wait for room and for its acknowledgements. `max_buffered_bytes` bounds
    what is held for unacknowledged calls: beyond it, calls wait.
    """

    def __init__(
        self,
        cluster: Cluster,
        client_id: str,
        *,
        delivery_timeout: float = 30.0,
        max_buffered_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self._delivery_timeout = delivery_timeout
        self._max_buffered_bytes = max_buffered_bytes
        self._partitions: dict[str, int] = {}
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._round_robin = count()
        self._buffered = 0
        self._room = asyncio.Event()
        self._admission = asyncio.Lock()
        self._lookups: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._connection = Connection(cluster, client_id)
        self._stopped = False

    async def start(self) -> None:
        """Connect; waits for Kafka for as long as it takes."""
        await self._connection.get()

    async def ask(self) -> None:
        """Return when Kafka has answered a question of ours, also while there is nothing to publish. Raises KafkaError or OSError."""
        kafka: Any = await self._connection.get()
        await kafka.client.fetch_all_metadata()

    async def stop(self, budget_seconds: float = 10.0) -> None:
        """Send what is queued, within the budget, and close. Calls still waiting then fail."""
        self._stopped = True
        busy = [lane.idle.wait() for lane in self._lanes.values()]
        with suppress(TimeoutError):
            async with asyncio.timeout(budget_seconds):
                await asyncio.gather(*busy)
        for lane in self._lanes.values():
            await lane.stop()
        await self._connection.close()

    async def publish(self, topic: str, records: Sequence[KeyValue]) -> None:
        """Publish (key, value) pairs; returns when all are acknowledged by all in-sync replicas.

        A key goes to its partition (`partitioning`); records of one call that have no key go together to the next partition
        in turn. Raises `PublishFailed` (publish all of them again) or `RecordTooLarge`. A cancelled call may have published some.
        """
        if records:
            await self._publish({topic: [(key, value, CLOUDEVENTS) for key, value in records]})

    async def publish_many(self, records: Sequence[Outgoing]) -> None:
        """The same for records of several topics, or with headers of their own."""
        rows: dict[str, list[Row]] = {}
        for r in records:
            of_topic = rows.get(r.topic)
            if of_topic is None:
                of_topic = rows[r.topic] = []
            of_topic.append((r.key, r.value, CLOUDEVENTS if r.headers is None else list(r.headers)))
        if rows:
            await self._publish(rows)

    async def _publish(self, rows: dict[str, list[Row]]) -> None:
        if self._stopped:
            raise PublishFailed("the producer is stopped")
        call = Call()
        size = sum(_size(topic, of_topic) for topic, of_topic in rows.items())
        try:
            async with asyncio.timeout(self._delivery_timeout):
                for topic in rows:
                    await self._look_up(topic)
                await self._admit(size)
                try:
                    self._enqueue(call, rows)
                    await call.future
                finally:
                    self._release(size)
        except TimeoutError:
            reasons = {lane.last_error for lane in self._lanes.values() if lane.topic in rows and lane.last_error}
            why = f" ({', '.join(sorted(reasons))})" if reasons else ""
            raise PublishFailed(
                f"{', '.join(sorted(rows))}: not acknowledged within {self._delivery_timeout:g} s{why}"
            ) from None

    async def _look_up(self, topic: str) -> None:
        """Learn how many partitions a topic has, which never changes. The lock, like that of `_admit`, keeps calls in their order."""
        async with self._lookups[topic]:
            while topic not in self._partitions:
                kafka = await self._connection.get()
                try:
                    self._partitions[topic] = len(await kafka.partitions_for(topic))
                except REFUSED as error:
                    raise PublishFailed(f"{topic}: {type(error).__name__}") from None
                except KafkaError as error:
                    log.warning("kafka.topic_unknown", topic=topic, error=type(error).__name__)

    async def _admit(self, size: int) -> None:
        """Wait until there is room."""
        async with self._admission:
            while self._buffered >= self._max_buffered_bytes:
                self._room.clear()
                await self._room.wait()
            self._buffered += size

    def _release(self, size: int) -> None:
        self._buffered -= size
        if self._buffered < self._max_buffered_bytes:
            self._room.set()

    def _enqueue(self, call: Call, rows_by_topic: dict[str, list[Row]]) -> None:
        parts: list[tuple[Lane, Part]] = []
        for topic, rows in rows_by_topic.items():
            partitions = self._partitions[topic]
            keyless = next(self._round_robin) % partitions
            shares: list[list[Row]] = [[] for _ in range(partitions)]
            for row in rows:
                key = row[0]
                shares[keyless if key is None else partition_of(key, partitions)].append(row)
            parts += [(self._lane(topic, n), Part(call, share)) for n, share in enumerate(shares) if share]
        call.remaining = len(parts)
        for lane, part in parts:
            lane.enqueue(part)

    def _lane(self, topic: str, partition: int) -> Lane:
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = Lane(self._connection, topic, partition)
        return lane


def _size(topic: str, rows: Sequence[Row]) -> int:
    """Octets that records take. Raises RecordTooLarge."""
    sizes = [(len(key) if key else 0) + (len(value) if value else 0) for key, value, _ in rows]
    largest = max(sizes) + _RECORD_OVERHEAD
    if largest > _limit(topic):
        raise RecordTooLarge(f"{topic}: a record of {largest} bytes; at most {_limit(topic)} are taken")
    return sum(sizes) + _RECORD_OVERHEAD * len(sizes)


def _limit(topic: str) -> int:
    return MAX_DEAD_LETTER_BYTES if topic.endswith(DEAD_LETTER) else MAX_RECORD_BYTES
