"""POST /sms/bulk: many messages under one id and, if wished, one Idempotency-Key.

Nothing is stored per message. The ids follow from the batch's id, the times from its millisecond and the numbers from its first number,
so a call that was killed half-way and is repeated with its key publishes the very same events, and downstream they are recognised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from http import HTTPStatus
from uuid import UUID

import msgspec

from libs.bus.codec import encode
from libs.bus.port import KeyValue, Outgoing
from libs.contracts.message_ids import new_message_id
from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import MESSAGES_ACCEPTED
from services.api_gateway.api_keys import Caller
from services.api_gateway.batch import Batch
from services.api_gateway.bulk_body import read_items
from services.api_gateway.idempotency import InProgress, Ledger, OtherBody, Publish, Published, Reservation
from services.api_gateway.known_keys import KnownKeys, in_progress, other_body
from services.api_gateway.neighbours import Neighbour
from services.api_gateway.numbers import Numbers
from services.api_gateway.problems import ProblemError
from services.api_gateway.publishing import DurablePublisher
from services.api_gateway.requests import Named, Repeatable
from services.api_gateway.responses import Response

MAX_BULK_BYTES = 16 * 1024 * 1024
AT_ONCE = 2
"""Batches that are worked on at once: one is read while Kafka writes the other. The rest wait, as bodies."""


class _Common(msgspec.Struct):
    """What a batch's events have in common beside its body: stored with its key until they are published."""

    traceparent: str
    validity_seconds: float


class BulkAccepter:
    """Accepts batches. Make it in a running loop."""

    def __init__(
        self,
        publisher: DurablePublisher,
        ledger: Ledger,
        numbers: Numbers,
        postgres: Neighbour,
        default_validity: timedelta,
    ) -> None:
        self._publisher = publisher
        self._ledger = ledger
        self._numbers = numbers
        self._postgres = postgres
        self._validity_seconds = default_validity.total_seconds()
        self._keys = KnownKeys(ledger)
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def stop(self) -> None:
        await self._keys.stop()

    async def accept(self, caller: Caller, body: bytes, traceparent: str, key: str | None) -> Response:
        """202 once Kafka has every message that is not refused. Raises the problems 400 (also if none is left), 409 and 422 (key in use)
        and 503, after which a repeat with the same key goes on where this one ended."""
        items = read_items(body)
        common = _Common(traceparent, self._validity_seconds)
        if key is None:
            async with self._turns:
                batch = _begin(new_message_id(), await self._take_numbers(len(items)), caller, common)
                return await self._publish(batch, items)
        asked = Repeatable(key, (await asyncio.to_thread(sha256, body)).digest())
        known = self._keys.enter(asked)
        if known is not None:
            async with self._turns:
                return await self._repeat(_begin(*known, caller, common), items)
        try:
            async with self._turns:
                return await self._accept_keyed(asked, caller, common, items)
        finally:
            self._keys.leave(asked)

    async def _accept_keyed(
        self, asked: Repeatable, caller: Caller, common: _Common, items: Sequence[msgspec.Raw]
    ) -> Response:
        match await self._reserve(asked, common, len(items)):
            case OtherBody():
                raise other_body()
            case InProgress(seconds_left):
                raise in_progress(seconds_left)
            case Published(batch_id, first_number):
                return await self._repeat(_begin(batch_id, first_number, caller, common), items)
            case Publish(batch_id, first_number, record):
                crash_point("api_gateway.reserve-publish")
                stored = msgspec.json.decode(record.value or b"", type=_Common)
                batch = _begin(batch_id, first_number, caller, stored)
        try:
            response = await self._publish(batch, items)
        except ProblemError as problem:
            await self._give_back(asked.key, published=problem.problem.status != HTTPStatus.BAD_REQUEST)
            raise
        crash_point("api_gateway.publish-mark")
        self._keys.published({asked: Named(batch.id, batch.first_number)})
        return response

    async def _reserve(
        self, asked: Repeatable, common: _Common, count: int
    ) -> Publish | Published | OtherBody | InProgress:
        record = Outgoing("", b"", encode(common))
        number = await self._take_numbers(count)
        try:
            (verdict,) = await self._ledger.reserve(
                [Reservation(asked.key, asked.body_hash, new_message_id(), number, record)]
            )
        except Exception as error:
            raise self._postgres.blamed_for(error, "the Idempotency-Key could not be stored: send it again") from error
        self._postgres.answered()
        return verdict

    async def _give_back(self, key: str, *, published: bool) -> None:
        """A repeat need not wait; and where nothing was published, the key is free for a better body."""
        try:
            await (self._ledger.release([key]) if published else self._ledger.forget(key))
        except Exception as error:
            self._postgres.blamed_for(error, "")

    async def _take_numbers(self, count: int) -> int:
        try:
            return await self._numbers.take_run(count)
        except Exception as error:
            raise self._postgres.blamed_for(error, "no message numbers are left; nothing was accepted") from error

    async def _publish(self, batch: Batch, items: Sequence[msgspec.Raw]) -> Response:
        """Each chunk is read while those before it are on their way to Kafka, which keeps their order."""
        under_way = list[asyncio.Task[None]]()
        for records in batch.chunks(items):
            under_way += [asyncio.create_task(self._publish_chunk(*each)) for each in records.items()]
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*under_way, return_exceptions=True)
        failure = next((outcome for outcome in outcomes if outcome is not None), None)
        if failure is not None:
            raise failure
        for priority, messages in batch.accepted.items():
            MESSAGES_ACCEPTED.labels(priority).inc(messages)
        return batch.response()

    async def _publish_chunk(self, topic: str, records: Sequence[KeyValue]) -> None:
        await self._publisher.publish(topic, records)
        crash_point("api_gateway.bulk-publish")

    async def _repeat(self, batch: Batch, items: Sequence[msgspec.Raw]) -> Response:
        """The answer again: what it says follows from the batch's id and the body."""
        for _ in batch.chunks(items):
            await asyncio.sleep(0)
        return batch.response()


def _begin(batch_id: UUID, first_number: int, caller: Caller, common: _Common) -> Batch:
    validity = timedelta(seconds=common.validity_seconds)
    return Batch(batch_id, first_number, caller, validity=validity, traceparent=common.traceparent)
