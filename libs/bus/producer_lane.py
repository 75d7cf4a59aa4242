"""What the producer has under way to one partition: a queue of calls' records and the task that empties it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress

import structlog
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from libs.bus.errors import PublishFailed, RecordTooLarge
from libs.bus.producer_connection import REFUSED, TOO_LARGE, Connection
from libs.service_kit.backoff import delays
from libs.service_kit.faults import fault
from libs.service_kit.metrics import RECORDS_PUBLISHED

log = structlog.get_logger()

Row = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]


class Call:
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


class Part:
    """The records of one call that go to one partition; `sent` of them are acknowledged."""

    __slots__ = ("call", "rows", "sent")

    def __init__(self, call: Call, rows: list[Row]) -> None:
        self.call = call
        self.rows = rows
        self.sent = 0

    def over(self) -> bool:
        """All acknowledged, or nobody waits for it any more."""
        return self.call.future.done() or self.sent == len(self.rows)


class Lane:
    """One partition's queue and the task that empties it, one batch in flight at a time."""

    def __init__(self, connection: Connection, topic: str, partition: int) -> None:
        self.topic = topic
        self.last_error = ""
        self.idle = asyncio.Event()
        self.idle.set()
        self._connection = connection
        self._partition = partition
        self._queue: deque[Part] = deque()
        self._published = RECORDS_PUBLISHED.labels(topic)
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._most_records = 1_000_000

    def enqueue(self, part: Part) -> None:
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
        for delay in delays(last=1.0):
            self._drop_what_is_over()
            if not self._queue:
                return
            kafka = await self._connection.get()
            batch = kafka.create_batch()
            taken = self._fill(batch)
            batch.close()
            try:
                await (await kafka.send_batch(batch, self.topic, partition=self._partition))
            except TOO_LARGE as error:
                self._connection.discard(kafka)
                if batch.record_count() == 1:
                    taken[0][0].call.fail(RecordTooLarge(f"{self.topic}: {type(error).__name__}"))
                    return
                self._most_records = batch.record_count() // 2  # the topic takes less than we are told
            except REFUSED as error:
                self._connection.discard(kafka)
                for part, _ in taken:
                    part.call.fail(PublishFailed(f"{self.topic}: {type(error).__name__}"))
                return
            except (KafkaError, OSError) as error:
                self._connection.discard(kafka)
                self.last_error = type(error).__name__
                log.warning("kafka.publish_failed", topic=self.topic, partition=self._partition, error=self.last_error)
                await asyncio.sleep(delay)
            else:
                self.last_error = ""
                self._published.inc(batch.record_count())
                self._acknowledged(taken)
                return

    def _fill(self, batch: BatchBuilder) -> list[tuple[Part, int]]:
        """Put records into the batch from the head of the queue until it is full: the parts it took from, and how far."""
        taken: list[tuple[Part, int]] = []
        room = self._most_records
        now_ms = int(time.time() * 1000)
        append = batch.append
        for part in self._queue:
            if part.over():
                continue
            for position in range(part.sent, len(part.rows)):
                key, value, headers = part.rows[position]
                if not room or append(timestamp=now_ms, key=key, value=value, headers=headers) is None:
                    if position > part.sent:
                        taken.append((part, position))
                    return taken
                room -= 1
            taken.append((part, len(part.rows)))
        return taken

    def _acknowledged(self, taken: list[tuple[Part, int]]) -> None:
        for part, position in taken:
            part.sent = position
            if position == len(part.rows):
                part.call.part_done()

    def _drop_what_is_over(self) -> None:
        while self._queue and self._queue[0].over():
            self._queue.popleft()
