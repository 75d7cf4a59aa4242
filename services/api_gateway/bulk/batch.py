"""A batch under way: each item becomes an event and an answer. Both follow from the batch's id, its first number and the body alone.

All items are read before the first is published: the answer begins with its status, and each event says how many the batch has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from datetime import timedelta
from http import HTTPStatus
from typing import NamedTuple
from uuid import UUID

import msgspec
from msgspec.structs import astuple

from libs.bus.codec import encode
from libs.bus.port import KeyValue
from libs.contracts.events import MessageEvent, PersonKind, Priority, SmsRequested
from libs.contracts.http.answers import BulkRefused, FieldProblem
from libs.contracts.http.problems import MAX_FIELDS
from libs.contracts.http.requests import SendSms
from libs.contracts.message_ids import time_of
from libs.service_kit.problems import ProblemError, bad_field
from services.api_gateway.api_keys import Caller
from services.api_gateway.bulk.batch_ids import batch_ids
from services.api_gateway.bulk.body import Item, read_item
from services.api_gateway.checks import check_length, check_schedule
from services.api_gateway.http.calls import MAX_BODY_BYTES
from services.api_gateway.plain_sms import PlainSms, parse_sms
from services.api_gateway.requests import Own, Request, person_of, requested_event, validity_of

CHUNK = 250
"""Items that are read, or published, in one go; between two chunks other requests have their turn."""
CHUNKS_PER_SLICE = 4
"""A slice is what is answered together, once all of it is acknowledged."""
SLICE = CHUNKS_PER_SLICE * CHUNK
MAX_TEMPLATES = 50
"""For so many different sets of options; the events of all other items are encoded one by one."""
_MARKS = Own("mark:event-id", "mark:message-id", "mark:person", "mark:number", "mark:text")
"""They stand in a template's event in this order. All before and between them is ours, so the first that is found is the right one."""

_SIZE = b'"batch_size":'
_UNKNOWN = 0
_NO_SIZE = b"%b%d" % (_SIZE, _UNKNOWN)
"""Where an event's batch size goes once all items are read. The first that is found is ours: before it stand no names but ours, and in a
text a quote is escaped."""


class _Template(NamedTuple):
    """An event up to the batch's size, and after it. In `head`, `%b` are event id, message id, person, number and text, in JSON: encoding
    them alone takes a quarter of the time."""

    priority: Priority
    head: bytes
    tail: bytes


_Record = tuple[Priority, bytes, bytes, bytes]
"""Priority, key, and the event up to the batch's size and after it."""


class Slice(NamedTuple):
    """What is answered for the items from `first` on if all is acknowledged, and how many of them are then accepted, by priority.
    `refused` has the indices of what is refused in the whole batch."""

    first: int
    answers: Sequence[str]
    accepted: Counter[Priority]
    refused: Set[int]


class Batch:
    """Before all else it must be `read` to the end."""

    def __init__(
        self, batch_id: UUID, first_number: int, caller: Caller, *, validity: timedelta, traceparent: str
    ) -> None:
        self.id = batch_id
        self.first_number = first_number
        self._caller = caller
        self._validity = validity
        self._traceparent = traceparent
        self._accepted_at = time_of(batch_id)
        self._templates: dict[tuple[PersonKind, tuple[bytes, ...]], _Template] = {}
        self._key_prefixes = {kind: f"{caller.tenant}/{kind}/" for kind in PersonKind}
        self._records: list[_Record | None] = []
        self._answers: list[str] = []
        self._refused = set[int]()
        self._problems: list[FieldProblem] = []

    def read(self, items: Sequence[msgspec.Raw]) -> Iterator[None]:
        """Read the items, chunk by chunk. Raises the problem 400 at the end if every one was refused."""
        ids = batch_ids(self.id, len(items))
        for start in range(0, len(items), CHUNK):
            for index, item in enumerate(items[start : start + CHUNK], start):
                message_id, event_id = next(ids)
                number = self.first_number + index
                try:
                    self._records.append(self._record(item, message_id, event_id, number))
                except ProblemError as problem:
                    self._refuse(index, problem)
                    continue
                self._answers.append(f'{{"index":{index},"id":"{message_id}","number":{number},"status":"accepted"}}')
            yield
        if len(self._refused) == len(items):
            raise ProblemError(HTTPStatus.BAD_REQUEST, "no message could be accepted", errors=self._problems)

    def chunks(self) -> Iterator[dict[Priority, list[KeyValue]]]:
        """The records of each chunk by priority."""
        size = b"%b%d" % (_SIZE, len(self._records) - len(self._refused))
        for start in range(0, len(self._records), CHUNK):
            records: dict[Priority, list[KeyValue]] = {}
            for found in self._records[start : start + CHUNK]:
                if found is not None:
                    priority, key, head, tail = found
                    records.setdefault(priority, []).append((key, head + size + tail))
            yield records

    def slices(self) -> Iterator[Slice]:
        """What is answered, in order."""
        for start in range(0, len(self._records), SLICE):
            accepted = Counter([found[0] for found in self._records[start : start + SLICE] if found is not None])
            yield Slice(start, self._answers[start : start + SLICE], accepted, self._refused)

    def _record(self, body: msgspec.Raw, message_id: str, event_id: str, number: int) -> _Record:
        """The item's event under its person's key. Raises the problem 400 with what is wrong."""
        item = read_item(body)
        template = self._template(item, body) if item is not None else None
        if item is None or template is None:
            sms = _parse(body)
            kind, person = person_of(sms.client_id, sms.staff_id)
            event = self._event(sms, kind, Own(event_id, message_id, person, number, sms.message))
            head, tail = encode(event).split(_NO_SIZE, 1)
            return sms.priority, self._key(kind, person), head, tail
        check_length(item.message)
        kind, person = person_of(item.client_id, item.staff_id)
        values = (
            b'"%b"' % event_id.encode(),
            b'"%b"' % message_id.encode(),
            encode(person),
            b"%d" % number,
            encode(item.message),
        )
        return template.priority, self._key(kind, person), template.head % values, template.tail

    def _template(self, item: Item, body: msgspec.Raw) -> _Template | None:
        """The template for items with these options; none if there are too many different ones."""
        kind, _ = person_of(item.client_id, item.staff_id)
        key = (kind, item.options)
        template = self._templates.get(key)
        if template is None and len(self._templates) < MAX_TEMPLATES:
            sms = _parse(body)
            head, tail = encode(self._event(sms, kind, _MARKS)).split(_NO_SIZE, 1)
            head = head.replace(b"%", b"%%")
            for mark in astuple(_MARKS):
                head = head.replace(b'"%b"' % mark.encode(), b"%b", 1)
            template = self._templates[key] = _Template(sms.priority, head, tail)
        return template

    def _event(self, sms: SendSms | PlainSms, kind: PersonKind, own: Own) -> MessageEvent[SmsRequested]:
        """Raises the problem 400 for a text too long, or a schedule that is not to come as the batch is accepted."""
        check_length(sms.message)
        request = Request(
            self._caller,
            sms,
            validity_of(sms.validity_seconds, self._validity),
            self._traceparent,
            scheduled_at=check_schedule(sms.scheduled_at, self._accepted_at),
        )
        return requested_event(request, own, kind, self._accepted_at, self.id, _UNKNOWN)

    def _key(self, kind: PersonKind, person: str) -> bytes:
        return (self._key_prefixes[kind] + person).encode()

    def _refuse(self, index: int, problem: ProblemError) -> None:
        whole = (FieldProblem(field="body", reason=problem.problem.detail or ""),)
        errors = problem.problem.errors or whole
        self._records.append(None)
        self._refused.add(index)
        self._answers.append(BulkRefused(index=index, errors=errors).model_dump_json(by_alias=True))
        if len(self._problems) < MAX_FIELDS:
            self._problems += [FieldProblem(field=f"messages.{index}.{e.field}", reason=e.reason) for e in errors]


def _parse(item: msgspec.Raw) -> SendSms | PlainSms:
    body = bytes(item)
    if len(body) > MAX_BODY_BYTES:
        raise bad_field("body", f"is larger than {MAX_BODY_BYTES} bytes")
    return parse_sms(body)
