"""Asks Kafka for offsets alone: where topics begin and end, and what a group has committed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from libs.service_kit.kafka import Cluster

T = TypeVar("T")


class OffsetsReader:
    """Joins no group and fetches nothing. `seconds` is how long a question may take.

    After a question that failed the next is asked by a new consumer: when a question is given up, aiokafka does not learn that the host of
    its broker is gone, and would go on asking that broker.
    """

    def __init__(self, cluster: Cluster, *, client_id: str, seconds: float, group: str | None = None) -> None:
        self._cluster = cluster
        self._client_id = client_id
        self._seconds = seconds
        self._group = group
        self._consumer: AIOKafkaConsumer | None = None
        self._opening = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect. Raises KafkaError or OSError while Kafka is away."""
        await self._opened()

    async def stop(self) -> None:
        self._drop()
        if self._closing:
            await asyncio.wait(self._closing)

    async def ask(self, question: Callable[[AIOKafkaConsumer], Awaitable[T]]) -> T:
        """The answer. Raises KafkaError, OSError, or TimeoutError when its time is over."""
        consumer: AIOKafkaConsumer | None = None
        try:
            async with asyncio.timeout(self._seconds):
                consumer = await self._opened()
                return await question(consumer)
        except (KafkaError, OSError, TimeoutError):
            if self._consumer is consumer:
                self._drop()
            raise

    def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            self._close_beside(consumer)

    def _close_beside(self, consumer: AIOKafkaConsumer) -> None:
        """Close it in a task of its own: that may wait for a broker that is gone, and nobody is to wait for it."""
        closing = asyncio.create_task(_close(consumer))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _opened(self) -> AIOKafkaConsumer:
        async with self._opening:
            if self._consumer is None:
                consumer = AIOKafkaConsumer(
                    **self._cluster.options(),
                    client_id=self._client_id,
                    group_id=self._group,
                    enable_auto_commit=False,
                    request_timeout_ms=round(self._seconds * 1000 / 2),  # so that a second broker can be asked
                )
                try:
                    await consumer.start()
                except BaseException:
                    self._close_beside(consumer)
                    raise
                self._consumer = consumer
            return self._consumer


async def _close(consumer: AIOKafkaConsumer) -> None:
    with suppress(KafkaError, OSError, TimeoutError):
        await consumer.stop()
