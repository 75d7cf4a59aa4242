"""POST /sms/bulk: many messages under one id and, if wished, one Idempotency-Key.

Nothing is stored per message. The ids follow from the batch's id, the times from its millisecond and the numbers from its first number,
so a call that was killed half-way and is repeated with its key publishes the very same events, and downstream they are recognised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from http import HTTPStatus
from uuid import UUID

import msgspec
import structlog

from libs.bus.codec import encode
from libs.bus.port import KeyValue, Outgoing
from libs.contracts.events import Priority
from libs.contracts.message_ids import new_message_id
from libs.contracts.topics import requested
from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import MESSAGES_ACCEPTED
from libs.service_kit.problems import ProblemError
from services.api_gateway.api_keys import Caller
from services.api_gateway.bulk.answer import BulkAnswer
from services.api_gateway.bulk.batch import CHUNKS_PER_SLICE, Batch
from services.api_gateway.bulk.body import read_items
from services.api_gateway.http.responses import Response, Stream
from services.api_gateway.idempotency import InProgress, Ledger, OtherBody, Publish, Published, Reservation, Verdict
from services.api_gateway.known_keys import KnownKeys, in_progress, other_body
from services.api_gateway.neighbours import Neighbour
from services.api_gateway.numbers import Numbers
from services.api_gateway.problems import unavailable
from services.api_gateway.publishing import DurablePublisher
from services.api_gateway.requests import Named, Repeatable

log = structlog.get_logger()

MAX_BULK_BYTES = 16 * 1024 * 1024
AT_ONCE = 2
"""Batches that are worked on at once: one is read while Kafka writes the other. The rest wait, as bodies."""
MAX_WAITING = 64
"""Calls that may wait; one more is refused at once."""

_TOPICS = {priority: requested(priority).name for priority in Priority}


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """A call, its body not yet read. `key`: its Idempotency-Key within its tenant and API key. `stream`: where the answer may go out in
    pieces."""

    caller: Caller
    body: bytes
    traceparent: str
    key: str | None
    stream: Stream | None


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
        self._calls = 0

    async def stop(self) -> None:
        await self._keys.stop()

    async def accept(self, request: BulkRequest) -> Response | None:
        """202, whose messages are durable: the whole answer, or None if it went out over the stream, slice by slice as Kafka had them.

        Raises, before anything is streamed, the problems 400 (also if no message is left), 409 and 422 (key in use), 429, and 503, after
        which a repeat with the same key goes on where this one ended. A call that ends with a problem counts as one request of its caller's
        rate, any other as one for each item.
        """
        if self._calls >= AT_ONCE + MAX_WAITING:
            raise unavailable("too many bulk calls wait already; nothing was accepted")
        self._calls += 1
        try:
            items = read_items(request.body)
            with request.caller.charged(len(items)):
                return await self._accept(request, items)
        finally:
            self._calls -= 1

    async def _accept(self, request: BulkRequest, items: Sequence[msgspec.Raw]) -> Response | None:
        common = _Common(request.traceparent, self._validity_seconds)
        if request.key is None:
            async with self._turns:
                first_number = await self._numbers.take_run(len(items))
                batch = _begin(request.caller, new_message_id(), first_number, common)
                answer = BulkAnswer(batch.id, request.stream, repeatable=False)
                await self._publish(batch, items, answer)
                return answer.end()
        repeatable = Repeatable(request.key, (await asyncio.to_thread(sha256, request.body)).digest())
        known = self._keys.enter(repeatable)
        if known is not None:
            async with self._turns:
                return await self._repeat(_begin(request.caller, known.message_id, known.number, common), items)
        try:
            async with self._turns:
                return await self._accept_keyed(request, items, repeatable, common)
        finally:
            self._keys.leave(repeatable)

    async def _accept_keyed(
        self, request: BulkRequest, items: Sequence[msgspec.Raw], repeatable: Repeatable, common: _Common
    ) -> Response | None:
        match await self._reserve(repeatable, common, len(items)):
            case OtherBody():
                raise other_body()
            case InProgress(seconds_left):
                raise in_progress(seconds_left)
            case Published(batch_id, first_number):
                return await self._repeat(_begin(request.caller, batch_id, first_number, common), items)
            case Publish(batch_id, first_number, record):
                crash_point("api_gateway.reserve-publish")
                stored = msgspec.json.decode(record.value or b"", type=_Common)
                batch = _begin(request.caller, batch_id, first_number, stored)
        answer = BulkAnswer(batch.id, request.stream, repeatable=True)
        try:
            complete = await self._publish(batch, items, answer)
        except ProblemError as problem:
            await self._give_back(repeatable.key, published=problem.problem.status != HTTPStatus.BAD_REQUEST)
            raise
        if complete:
            crash_point("api_gateway.publish-mark")
            self._keys.published({repeatable: Named(batch.id, batch.first_number)})
        else:
            await self._give_back(repeatable.key, published=True)
        return answer.end()

    async def _reserve(self, repeatable: Repeatable, common: _Common, count: int) -> Verdict:
        record = Outgoing("", b"", encode(common))
        number = await self._numbers.take_run(count)
        reservation = Reservation(repeatable.key, repeatable.body_hash, new_message_id(), number, record)
        with self._postgres.needed("the Idempotency-Key could not be stored: send it again"):
            (verdict,) = await self._ledger.reserve([reservation])
        return verdict

    async def _give_back(self, key: str, *, published: bool) -> None:
        """Let go of the key: a repeat need not wait, and where nothing was published another body may have it."""
        try:
            await (self._ledger.release([key]) if published else self._ledger.forget(key))
        except Exception as error:
            log.warning("claim not given back", reason=type(error).__name__)

    async def _publish(self, batch: Batch, items: Sequence[msgspec.Raw], answer: BulkAnswer) -> bool:
        """Publish everything, in order, and answer each slice as it is acknowledged. False if one was not, after the answer had begun.
        Raises the problems 400 and, if it had not, 503."""
        await _read(batch, items)
        under_way = list[list[asyncio.Task[None]]]()
        for number, records in enumerate(batch.chunks()):
            if number % CHUNKS_PER_SLICE == 0:
                under_way.append([])
            under_way[-1] += [asyncio.create_task(self._publish_chunk(*each)) for each in records.items()]
            await asyncio.sleep(0)
        complete = True
        for part, publishing in zip(batch.slices(), under_way, strict=True):
            failure = await _failure(publishing)
            if failure is None:
                answer.add(part)
                for priority, messages in part.accepted.items():
                    MESSAGES_ACCEPTED.labels(priority).inc(messages)
            elif answer.begun and isinstance(failure, ProblemError):
                answer.add_in_doubt(part)
                complete = False
            else:
                await _failure([task for tasks in under_way for task in tasks])
                raise failure
            if publishing is not under_way[-1]:
                answer.send()
        return complete

    async def _publish_chunk(self, priority: Priority, records: Sequence[KeyValue]) -> None:
        await self._publisher.publish(_TOPICS[priority], records)
        crash_point("api_gateway.bulk-publish")

    async def _repeat(self, batch: Batch, items: Sequence[msgspec.Raw]) -> Response | None:
        """The answer again: what it says follows from the batch's id and the body."""
        await _read(batch, items)
        answer = BulkAnswer(batch.id, None, repeatable=True)
        for part in batch.slices():
            answer.add(part)
        return answer.end()


async def _read(batch: Batch, items: Sequence[msgspec.Raw]) -> None:
    for _ in batch.read(items):
        await asyncio.sleep(0)


async def _failure(publishing: Sequence[asyncio.Task[None]]) -> BaseException | None:
    """Wait for all; what went wrong first."""
    outcomes = await asyncio.gather(*publishing, return_exceptions=True)
    return next((outcome for outcome in outcomes if outcome is not None), None)


def _begin(caller: Caller, batch_id: UUID, first_number: int, common: _Common) -> Batch:
    validity = timedelta(seconds=common.validity_seconds)
    return Batch(batch_id, first_number, caller, validity=validity, traceparent=common.traceparent)
