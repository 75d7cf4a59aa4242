"""The one way to publish: idempotent, `acks=all`, in closed batches of our own, in order per partition.

Each partition of a topic has a lane: a queue and one task that sends its head as one batch of at most 512 KiB, waits for the
acknowledgement, and sends the next. So records with one key are stored in the order in which their `publish` calls were admitted, also
when these run at once, and the more callers wait the larger the batches grow. A call that failed is repeated by its
caller behind what was published meanwhile: order is promised among calls that succeed.

aiokafka repeats transient failures without end and in sequence. Any other failure leaves a hole in the sequence that the broker would
refuse from then on, so the connection is given up for a new one, and the batch is sent again until its callers' time is over.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count
from zlib import crc32

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from libs.bus.errors import PublishFailed, RecordTooLarge, fault
from libs.bus.port import KeyValue, Outgoing
from libs.service_kit.metrics import RECORDS_PUBLISHED

log = structlog.get_logger()

CLOUDEVENTS = [("content-type", b"application/cloudevents+json")]
MAX_BATCH_BYTES = 512 * 1024
MAX_RECORD_BYTES = 2 * 1024 * 1024 - 4096
"""What a topic takes (`max.message.bytes` in the contracts), less what a batch adds."""
MAX_DEAD_LETTER_BYTES = MAX_RECORD_BYTES + 64 * 1024
"""A dead letter is a record with headers more."""
_RECORD_OVERHEAD = 64  # lengths, offsets, the one header: what a record takes beside key and value
_HOPELESS = (MessageSizeTooLargeError, RecordListTooLargeError, TopicAuthorizationFailedError, InvalidTopicError)
_BACKOFF_SECONDS = (0.1, 0.2, 0.5, 1.0)

_Headers = list[tuple[str, bytes]]
_Row = tuple[bytes | None, bytes | None, _Headers]


class _Call:
    """One `publish`: resolved when every part of it is acknowledged, or as soon as one can't be."""

    __slots__ = ("future", "remaining")

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.remaining = 0

    def part_done(self) -> None:
        self.remaining -= 1
        if not self.remaining and not self.future.done():
            self.future.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class _Part:
    """The records of one call that go to one partition; `sent` of them are acknowledged."""

    __slots__ = ("call", "rows", "sent")

    def __init__(self, call: _Call) -> None:
        self.call = call
        self.rows: list[_Row] = []
        self.sent = 0

    def over(self) -> bool:
        """All acknowledged, or nobody waits for it any more."""
        return self.call.future.done() or self.sent == len(self.rows)


class Producer:
    """Publishes records. One per process; safe to use from any number of tasks.

    `delivery_timeout` is how long, in seconds, a call may wait for room and for its acknowledgements. `max_buffered_bytes` bounds
    what is held for unacknowledged calls: beyond it, calls wait.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        client_id: str,
        *,
        delivery_timeout: float = 30.0,
        max_buffered_bytes: int = 64 * 1024 * 1024,
        compression: str | None = None,
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._client_id = client_id
        self._delivery_timeout = delivery_timeout
        self._max_buffered_bytes = max_buffered_bytes
        self._compression = compression
        self._partitions: dict[str, int] = {}
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._round_robin = count()
        self._buffered = 0
        self._room = asyncio.Event()
        self._admission = asyncio.Lock()
        self._lookups: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._kafka: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def start(self) -> None:
        """Connect; waits for Kafka for as long as it takes."""
        await self.connection()

    async def stop(self, budget_seconds: float = 10.0) -> None:
        """Send what is queued, within the budget, and close. Calls still waiting then fail."""
        self._stopped = True
        busy = [lane.idle.wait() for lane in self._lanes.values()]
        with suppress(TimeoutError):
            async with asyncio.timeout(budget_seconds):
                await asyncio.gather(*busy)
        for lane in self._lanes.values():
            await lane.stop()
        if self._kafka is not None:
            self.discard(self._kafka)
        if self._closing:
            _, late = await asyncio.wait(self._closing, timeout=2)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def publish(self, topic: str, records: Sequence[KeyValue]) -> None:
        """Publish (key, value) pairs; returns when all are acknowledged by all in-sync replicas.

        A key goes to partition crc32(key) % partitions; records of one call that have no key go together to the next partition
        in turn. Raises `PublishFailed` (publish all of them again) or `RecordTooLarge`. A cancelled call may have published some.
        """
        await self._publish(((topic, key, value, CLOUDEVENTS) for key, value in records))

    async def publish_many(self, records: Sequence[Outgoing]) -> None:
        """The same for records of several topics, or with headers of their own."""
        await self._publish(
            (r.topic, r.key, r.value, CLOUDEVENTS if r.headers is None else list(r.headers)) for r in records
        )

    async def _publish(self, records: Iterable[tuple[str, bytes | None, bytes | None, _Headers]]) -> None:
        if self._stopped:
            raise PublishFailed("the producer is stopped")
        call = _Call()
        rows, size = self._by_topic(records)
        if not rows:
            return
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

    def _by_topic(
        self, records: Iterable[tuple[str, bytes | None, bytes | None, _Headers]]
    ) -> tuple[dict[str, list[_Row]], int]:
        rows: dict[str, list[_Row]] = {}
        total = 0
        for topic, key, value, headers in records:
            size = (len(key) if key else 0) + (len(value) if value else 0) + _RECORD_OVERHEAD
            if size > MAX_RECORD_BYTES and size > _limit(topic):
                raise RecordTooLarge(f"{topic}: a record of {size} bytes; at most {_limit(topic)} are taken")
            total += size
            of_topic = rows.get(topic)
            if of_topic is None:
                of_topic = rows[topic] = []
            of_topic.append((key, value, headers))
        return rows, total

    async def _look_up(self, topic: str) -> None:
        """Learn how many partitions a topic has; that is fixed for life. The lock, like the next one, keeps calls in their order."""
        async with self._lookups[topic]:
            while topic not in self._partitions:
                kafka = await self.connection()
                try:
                    self._partitions[topic] = len(await kafka.partitions_for(topic))
                except _HOPELESS as error:
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

    def _enqueue(self, call: _Call, rows_by_topic: dict[str, list[_Row]]) -> None:
        parts: dict[_Lane, _Part] = {}
        for topic, rows in rows_by_topic.items():
            partitions = self._partitions[topic]
            keyless = next(self._round_robin) % partitions
            lanes = [self._lane(topic, partition) for partition in range(partitions)]
            for row in rows:
                lane = lanes[crc32(row[0]) % partitions if row[0] is not None else keyless]
                part = parts.get(lane)
                if part is None:
                    part = parts[lane] = _Part(call)
                part.rows.append(row)
        call.remaining = len(parts)
        for lane, part in parts.items():
            lane.enqueue(part)

    def _lane(self, topic: str, partition: int) -> _Lane:
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = _Lane(self, topic, partition)
        return lane

    async def connection(self) -> AIOKafkaProducer:
        """The current connection; made anew, with backoff, when there is none."""
        if self._kafka is not None:
            return self._kafka
        async with self._connecting:
            attempt = 0
            while self._kafka is None:
                kafka = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap_servers,
                    client_id=self._client_id,
                    acks="all",
                    enable_idempotence=True,
                    linger_ms=0,
                    max_batch_size=MAX_BATCH_BYTES,
                    compression_type=self._compression,
                    request_timeout_ms=10_000,
                )
                try:
                    await kafka.start()
                    self._kafka = kafka
                except (KafkaError, OSError) as error:
                    log.warning("kafka.unreachable", client=self._client_id, error=type(error).__name__)
                finally:
                    if self._kafka is not kafka:
                        await kafka.stop()
                if self._kafka is None:
                    await asyncio.sleep(_BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)])
                    attempt += 1
            return self._kafka

    def discard(self, kafka: AIOKafkaProducer) -> None:
        """Give up a connection. It is closed once what other lanes have under way on it is acknowledged or refused."""
        if self._kafka is kafka:
            self._kafka = None
            task = asyncio.create_task(kafka.stop())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


class _Lane:
    """One partition's queue and the task that empties it, one batch in flight at a time."""

    def __init__(self, producer: Producer, topic: str, partition: int) -> None:
        self.topic = topic
        self.last_error = ""
        self.idle = asyncio.Event()
        self.idle.set()
        self._producer = producer
        self._partition = partition
        self._queue: deque[_Part] = deque()
        self._published = RECORDS_PUBLISHED.labels(topic)
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def enqueue(self, part: _Part) -> None:
        self._drop_what_is_over()  # so that a long outage piles nothing up
        self._queue.append(part)
        self.idle.clear()
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._fail_all(PublishFailed(f"{self.topic}: the producer is stopped"))

    def _fail_all(self, error: Exception) -> None:
        for part in self._queue:
            part.call.fail(error)
        self._queue.clear()

    async def _run(self) -> None:
        try:
            while True:
                while self._queue:
                    await self._send_head()
                self.idle.set()
                self._wake.clear()
                await self._wake.wait()
        except Exception as error:
            # A fault of ours: whoever waits must hear of it, and the next call starts the lane anew.
            log.error("producer.lane_failed", topic=self.topic, fault=fault(error))
            self._fail_all(PublishFailed(f"{self.topic}: {type(error).__name__}"))
            self.idle.set()

    async def _send_head(self) -> None:
        """Send one batch from the head of the queue, however often it takes, as long as anyone waits for it."""
        for attempt in count():
            self._drop_what_is_over()
            if not self._queue:
                return
            kafka = await self._producer.connection()
            batch = kafka.create_batch()
            taken = self._fill(batch)
            batch.close()
            try:
                await (await kafka.send_batch(batch, self.topic, partition=self._partition))
            except _HOPELESS as error:
                self._producer.discard(kafka)
                fault = RecordTooLarge if "TooLarge" in type(error).__name__ else PublishFailed
                for part, _ in taken:
                    part.call.fail(fault(f"{self.topic}: {type(error).__name__}"))
                return
            except (KafkaError, OSError) as error:
                self._producer.discard(kafka)
                self.last_error = type(error).__name__
                log.warning("kafka.publish_failed", topic=self.topic, partition=self._partition, error=self.last_error)
                await asyncio.sleep(_BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)])
            else:
                self.last_error = ""
                self._published.inc(batch.record_count())
                self._acknowledged(taken)
                return

    def _fill(self, batch: BatchBuilder) -> list[tuple[_Part, int]]:
        """Put records into the batch from the head of the queue until it is full: the parts it took from, and how far."""
        taken: list[tuple[_Part, int]] = []
        now_ms = int(time.time() * 1000)
        append = batch.append
        for part in self._queue:
            if part.over():
                continue
            for position in range(part.sent, len(part.rows)):
                key, value, headers = part.rows[position]
                if append(timestamp=now_ms, key=key, value=value, headers=headers) is None:
                    if position > part.sent:
                        taken.append((part, position))
                    return taken
            taken.append((part, len(part.rows)))
        return taken

    def _acknowledged(self, taken: list[tuple[_Part, int]]) -> None:
        for part, position in taken:
            part.sent = position
            if position == len(part.rows):
                part.call.part_done()

    def _drop_what_is_over(self) -> None:
        while self._queue and self._queue[0].over():
            self._queue.popleft()


def _limit(topic: str) -> int:
    return MAX_DEAD_LETTER_BYTES if topic.endswith(".dead-letter") else MAX_RECORD_BYTES
