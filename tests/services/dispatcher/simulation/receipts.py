"""The receipts service in a simulation: its real handler and sweep, over what the dispatchers tell and the carrier reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from aiokafka.structs import TopicPartition

from libs.bus.batch import Batch
from libs.bus.codec import decoder_for
from libs.bus.errors import PublishFailed
from libs.bus.port import KeyValue
from libs.bus.record import Record
from libs.contracts import topics
from libs.contracts.events import Event, GatewayReceipt, MessageEvent, SmsStatus
from libs.storage.database import Pool
from services.receipts import unreported
from services.receipts.handlers import handle
from services.receipts.recent import RecentRegistrations
from tests.services.dispatcher.builders import GATEWAY

WINDOW_SECONDS = 600.0
"""How long a final receipt is waited for."""
UNTIL_SWEPT_SECONDS = WINDOW_SECONDS + unreported.SLOT_SECONDS
_KEY = b"a key only for tests"
_STATUSES = {TopicPartition(topics.STATUS.name, number) for number in range(topics.PARTITIONS)}
_OPEN_DOUBTS = "SELECT message_id, cycle, leg, part, try_number FROM doubts WHERE provider_id IS NULL"
_decode = decoder_for(MessageEvent[SmsStatus])


class Receipts:
    """One replica, which reads its two topics in batches, in whatever order they come."""

    def __init__(self, pool: Pool, note: Callable[[MessageEvent[SmsStatus]], None]) -> None:
        self._pool = pool
        self._note = note
        self._logs: dict[str, list[Record]] = {topics.STATUS.name: [], topics.RECEIPTS.name: []}
        self._positions = dict.fromkeys(self._logs, 0)
        self._recent = RecentRegistrations()
        self._epoch = 0
        self._loses = False

    @property
    def waiting(self) -> bool:
        return any(self._rest.values())

    @property
    def read_before(self) -> bool:
        return any(self._positions.values())

    def hear(self, topic: topics.Topic, event: MessageEvent[SmsStatus] | Event[GatewayReceipt]) -> None:
        """A record is in Kafka."""
        log = self._logs[topic.name]
        log.append(Record(TopicPartition(topic.name, 0), len(log), None, None, (), event))

    async def read(self, choose: Callable[[int], int], *, lost: bool = False) -> None:
        """Handle a batch. `lost`: it ends before what it stored is told, and handles the same records again later, in other batches."""
        batch = {name: records[: choose(len(records) + 1)] for name, records in self._rest.items()}
        await self._handle(batch if any(batch.values()) else self._rest, lost)

    async def read_all(self) -> None:
        await self._handle(self._rest)

    @property
    def _rest(self) -> dict[str, list[Record]]:
        return {name: log[self._positions[name] :] for name, log in self._logs.items()}

    async def _handle(self, batch: dict[str, list[Record]], lost: bool = False) -> None:
        self._loses = lost
        stream: Any = SimpleNamespace(epoch=self._epoch, assignment=lambda: _STATUSES)
        records = [record for of_topic in batch.values() for record in of_topic]
        try:
            held = await handle(Batch(records, stream=stream), self._pool, self, _KEY, self._recent)
        except PublishFailed:
            self._epoch += 1
            return
        assert not held, "none of them came a moment ago"
        for name, of_topic in batch.items():
            self._positions[name] += len(of_topic)

    def reset(self) -> None:
        """The offsets are set back."""
        self._positions = dict.fromkeys(self._logs, 0)
        self._epoch += 1

    async def sweep(self, now: datetime) -> None:
        """End what was not reported within its window."""
        await unreported.sweep(self._pool, self, {GATEWAY: timedelta(seconds=WINDOW_SECONDS)}, now)

    async def parked(self) -> set[str]:
        """The ids of the receipts that have found no attempt."""
        return {row["receipt_id"] for row in await self._pool.fetch("SELECT receipt_id FROM parked WHERE NOT matched")}

    async def open_doubts(self) -> set[tuple[UUID, int, int, int, int]]:
        """Message, cycle, leg, part and try of the attempts for which a receipt would still be taken by its reference."""
        return {tuple(row) for row in await self._pool.fetch(_OPEN_DOUBTS)}

    # What the handler has for Kafka.

    async def publish(self, _: str, records: Sequence[KeyValue]) -> None:
        if self._loses:
            raise PublishFailed
        for _, value in records:
            self._note(_decode(value or b""))

    async def publish_many(self, records: Sequence[Any]) -> None:
        raise NotImplementedError
