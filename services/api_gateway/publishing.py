"""Publishing as the API promises it: acknowledged by Kafka in time, or 503."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import structlog

from libs.bus.errors import PublishFailed
from libs.bus.port import KeyValue, Outgoing, Publisher
from services.api_gateway.neighbours import Neighbour
from services.api_gateway.problems import unavailable

log = structlog.get_logger()


class DurablePublisher:
    """Raises the problem 503 unless Kafka acknowledges everything within `timeout_seconds`, or before the loop's time `deadline`."""

    def __init__(self, publisher: Publisher, kafka: Neighbour, timeout_seconds: float) -> None:
        self._publisher = publisher
        self._kafka = kafka
        self._timeout_seconds = timeout_seconds

    async def publish(self, topic: str, records: Sequence[KeyValue]) -> None:
        await self._acknowledged(self._publisher.publish(topic, records), len(records), None)

    async def publish_many(self, records: Sequence[Outgoing], deadline: float | None = None) -> None:
        await self._acknowledged(self._publisher.publish_many(records), len(records), deadline)

    async def _acknowledged(self, publishing: Awaitable[None], records: int, deadline: float | None) -> None:
        until = asyncio.get_running_loop().time() + self._timeout_seconds if deadline is None else deadline
        try:
            async with asyncio.timeout_at(until):
                await publishing
        except (PublishFailed, TimeoutError) as error:
            self._kafka.failed()
            log.warning("events not acknowledged", records=records, reason=str(error) or "out of time")
            raise unavailable("Kafka did not acknowledge everything in time; what was sent may still go out") from None
        self._kafka.answered()
