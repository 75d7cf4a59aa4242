"""The producer's connection to Kafka, made anew whenever it was given up."""

from __future__ import annotations

import asyncio

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)

from libs.service_kit.backoff import delays
from libs.service_kit.kafka import Cluster

log = structlog.get_logger()

MAX_BATCH_BYTES = 512 * 1024
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
REFUSED = (TopicAuthorizationFailedError, InvalidTopicError)
"""What the broker would answer again, however often it is asked."""
_COMPRESSION = "snappy"
"""Batches of events are a fifth of their size by it, for half a microsecond an event, written and read (docs/decisions/0021)."""
_REQUEST_TIMEOUT_MS = 10_000
_CLOSE_SECONDS = 2.0


class Connection:
    """At most one current connection.

    aiokafka repeats transient failures without end and in sequence. Any other failure leaves a hole in the sequence, and the
    broker would refuse whatever follows; so the connection is then given up for a new one.
    """

    def __init__(self, cluster: Cluster, client_id: str) -> None:
        self._cluster = cluster
        self._client_id = client_id
        self._current: AIOKafkaProducer | None = None
        self._lock = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def get(self) -> AIOKafkaProducer:
        """The current connection; waits, with backoff, until there is one."""
        if self._current is not None:
            return self._current
        async with self._lock:
            for delay in delays(last=1.0):
                if self._current is not None:
                    return self._current
                await self._connect()
                if self._current is None:
                    await asyncio.sleep(delay)
        raise AssertionError("delays() has no end")

    async def _connect(self) -> None:
        kafka = AIOKafkaProducer(
            **self._cluster.options(),
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=MAX_BATCH_BYTES,
            compression_type=_COMPRESSION,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
        )
        try:
            await kafka.start()
            self._current = kafka
        except (KafkaError, OSError) as error:
            log.warning("kafka.unreachable", client=self._client_id, error=type(error).__name__)
        finally:
            if self._current is not kafka:
                await kafka.stop()

    def discard(self, kafka: AIOKafkaProducer) -> None:
        """Give up a connection. It is closed once what is under way on it is acknowledged or refused."""
        if self._current is kafka:
            self._current = None
            task = asyncio.create_task(kafka.stop())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        if self._current is not None:
            self.discard(self._current)
        if self._closing:
            _, late = await asyncio.wait(self._closing, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
