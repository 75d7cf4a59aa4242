"""POST /sms/bulk: many messages under one id and, if wished, one Idempotency-Key.

Nothing is stored per message. The ids follow from the batch's id, the times from its millisecond and the numbers from its first number,
so a call that was killed half-way and is repeated with its key publishes the very same events, and downstream they are recognised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from http import HTTPStatus
from uuid import UUID

import msgspec

from libs.bus.codec import encode
from libs.bus.port import KeyValue, Outgoing
from libs.contracts.events import PersonKind, Priority
from libs.contracts.http import BulkRefused, FieldProblem
from libs.contracts.message_ids import new_message_id, time_of
from libs.contracts.topics import requested
from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import MESSAGES_ACCEPTED
from services.api_gateway.api_keys import Caller
from services.api_gateway.batch_ids import batch_ids
from services.api_gateway.bulk_body import item_errors, read_items
from services.api_gateway.calls import MAX_BODY_BYTES
from services.api_gateway.checks import check_length, check_schedule
from services.api_gateway.event_template import event_template
from services.api_gateway.idempotency import InProgress, Ledger, OtherBody, Publish, Published, Reservation
from services.api_gateway.known_keys import KnownKeys, in_progress, other_body
from services.api_gateway.neighbours import Neighbour
from services.api_gateway.numbers import Numbers
from services.api_gateway.plain_sms import PlainSms, parse_sms
from services.api_gateway.problems import MAX_FIELDS, ProblemError, bad_field
from services.api_gateway.publishing import DurablePublisher
from services.api_gateway.requests import Named, Repeatable, recipient, requested_event
from services.api_gateway.responses import Response

MAX_BULK_BYTES = 16 * 1024 * 1024
CHUNK = 500
"""Messages that are read and published in one go; between two chunks other requests have their turn."""
_TOPICS = {priority: requested(priority).name for priority in Priority}
AT_ONCE = 2
"""Batches that are worked on at once: one is read while Kafka writes the other. The rest wait, as bodies."""


class _Common(msgspec.Struct):
    """What a batch's events have in common beside its body: stored with its key until they are published."""

    traceparent: str
    validity_seconds: float


@dataclass(slots=True)
class _Batch:
    """A batch under way; what is answered grows with each chunk."""

    id: UUID
    first_number: int
    caller: Caller
    traceparent: str
    validity: timedelta
    accepted_at: datetime
    templates: dict[tuple[PersonKind, Priority], bytes] = field(
        default_factory=dict[tuple[PersonKind, Priority], bytes]
    )
    answers: list[str] = field(default_factory=list[str])
    problems: list[FieldProblem] = field(default_factory=list[FieldProblem])
    accepted: dict[Priority, int] = field(default_factory=lambda: dict.fromkeys(Priority, 0))


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

    async def _publish(self, batch: _Batch, items: Sequence[msgspec.Raw]) -> Response:
        """Each chunk is read while those before it are on their way to Kafka, which keeps their order."""
        under_way = list[asyncio.Task[None]]()
        for records in _chunks(batch, items):
            under_way += [asyncio.create_task(self._publish_chunk(*each)) for each in records.items()]
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*under_way, return_exceptions=True)
        failure = next((outcome for outcome in outcomes if outcome is not None), None)
        if failure is not None:
            raise failure
        for priority, messages in batch.accepted.items():
            MESSAGES_ACCEPTED.labels(priority).inc(messages)
        return _response(batch, len(items))

    async def _publish_chunk(self, topic: str, records: Sequence[KeyValue]) -> None:
        await self._publisher.publish(topic, records)
        crash_point("api_gateway.bulk-publish")

    async def _repeat(self, batch: _Batch, items: Sequence[msgspec.Raw]) -> Response:
        """The answer again: what it says follows from the batch's id and the body."""
        for _ in _chunks(batch, items):
            await asyncio.sleep(0)
        return _response(batch, len(items))


def _begin(batch_id: UUID, first_number: int, caller: Caller, common: _Common) -> _Batch:
    validity = timedelta(seconds=common.validity_seconds)
    return _Batch(batch_id, first_number, caller, common.traceparent, validity, time_of(batch_id))


def _chunks(batch: _Batch, items: Sequence[msgspec.Raw]) -> Iterator[dict[str, list[KeyValue]]]:
    """The records of each chunk by topic. What is answered of the items is added to the batch."""
    ids = batch_ids(batch.id, len(items))
    for start in range(0, len(items), CHUNK):
        records: dict[str, list[KeyValue]] = {}
        for index, item in enumerate(items[start : start + CHUNK], start):
            message_id, event_id = next(ids)
            try:
                priority, record = _record(batch, item, message_id, event_id, batch.first_number + index)
            except ProblemError as problem:
                _refuse(batch, index, item_errors(problem))
                continue
            records.setdefault(_TOPICS[priority], []).append(record)
            batch.accepted[priority] += 1
            batch.answers.append(
                f'{{"index":{index},"id":"{message_id}","number":{batch.first_number + index},"status":"accepted"}}'
            )
        yield records


def _record(batch: _Batch, item: msgspec.Raw, message_id: str, event_id: str, number: int) -> tuple[Priority, KeyValue]:
    """The item's event under its person's key. Raises the problem 400 with what is wrong."""
    body = bytes(item)
    if len(body) > MAX_BODY_BYTES:
        raise bad_field("body", f"is larger than {MAX_BODY_BYTES} bytes")
    sms = parse_sms(body)
    check_length(sms.message)
    kind, person = recipient(sms)
    key = f"{batch.caller.tenant}/{kind}/{person}".encode()
    if isinstance(sms, PlainSms):
        template = batch.templates.get((kind, sms.priority)) or _template(batch, kind, sms)
        texts = (encode(person), b"%d" % number, encode(sms.message))
        return sms.priority, (key, template % (b'"%b"' % event_id.encode(), b'"%b"' % message_id.encode(), *texts))
    event = requested_event(
        event_id=event_id,
        message_id=message_id,
        number=number,
        kind=kind,
        person=person,
        text=sms.message,
        sms=sms,
        caller=batch.caller,
        accepted_at=batch.accepted_at,
        scheduled_at=check_schedule(sms.scheduled_at, batch.accepted_at),
        validity=batch.validity if sms.validity_seconds is None else timedelta(seconds=sms.validity_seconds),
        traceparent=batch.traceparent,
        batch_id=batch.id,
    )
    return sms.priority, (key, encode(event))


def _template(batch: _Batch, kind: PersonKind, sms: PlainSms) -> bytes:
    template = event_template(
        kind,
        sms,
        batch.caller,
        accepted_at=batch.accepted_at,
        validity=batch.validity,
        traceparent=batch.traceparent,
        batch_id=batch.id,
    )
    batch.templates[kind, sms.priority] = template
    return template


def _refuse(batch: _Batch, index: int, errors: tuple[FieldProblem, ...]) -> None:
    batch.answers.append(BulkRefused(index=index, errors=errors).model_dump_json(by_alias=True))
    if len(batch.problems) < MAX_FIELDS:
        batch.problems += [FieldProblem(field=f"messages.{index}.{e.field}", reason=e.reason) for e in errors]


def _response(batch: _Batch, count: int) -> Response:
    """202 with `Bulk` as its body, written by hand. Raises the problem 400 if every item was refused."""
    accepted = sum(batch.accepted.values())
    if not accepted:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "no message could be accepted", errors=batch.problems)
    location = f"/batches/{batch.id}"
    body = (
        f'{{"batchId":"{batch.id}","accepted":{accepted},"rejected":{count - accepted},'
        f'"items":[{",".join(batch.answers)}],"location":"{location}"}}'
    )
    return Response(HTTPStatus.ACCEPTED, body.encode(), headers={"Location": location})
