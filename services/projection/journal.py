"""The journal's lines: an event without number and text, and without what follows from the rest; and the event again.

A row of the journal, an entry, has the lines of all events of a message that were applied at once. A line says the event's id, its topic,
and its values: an array of the number of a form, then of that form's fields. A form may grow at its end, by fields that have a default (an
older line just ends sooner); any other change, and another version of an event, is a new form with the next number.

What a message's request says, text and number aside, is in the line of the request alone, and so is the trace: every later event of the
message passes both on. An event's time is that of its cause, which its data has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import getitem
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from libs.bus.errors import BadRecord
from libs.contracts.events import (
    Reason,
    SmsCommand,
    SmsDeferred,
    SmsDispatch,
    SmsRequested,
    SmsReturned,
    SmsStatus,
    event_class,
    type_name,
)
from libs.contracts.fold import AnyMessageEvent
from services.projection.rows import storable_data

LEFT_OUT = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands where an event can't do without a time that its line does not have."""


NewEntry = tuple[UUID, str, bytes]
"""A row to be written, as plain a tuple as asyncpg copies fastest: the message, the least of the events' ids, and the lines."""


class Line(NamedTuple):
    """What the journal keeps of one event."""

    message_id: UUID
    event_id: bytes
    topic: str
    values: list[Any]


@dataclass(frozen=True, slots=True)
class _Form:
    """How events with this data are written: `fields` are paths into them, `time` is the one that the envelope's time is taken from."""

    data: type
    time: str
    fields: tuple[str, ...]
    blanks: dict[str, Any]
    """What the event can't do without and the line does not have."""


_LEG = ("data.leg.cycle", "data.leg.leg", "data.leg.leg_at")
_PERSON = ("data.tenant", "data.recipient.kind", "data.recipient.id")
_PERSON_OF_MESSAGE = ("data.message.tenant", "data.message.recipient.kind", "data.message.recipient.id")
_NO_MESSAGE = {
    "data.message.number": 0,
    "data.message.text": "",
    "data.message.accepted_at": LEFT_OUT,
    "data.message.valid_until": LEFT_OUT,
}
_REQUESTED = _Form(
    SmsRequested,
    "data.leg.leg_at",
    (
        *("source", "traceparent", *_PERSON_OF_MESSAGE, *_LEG),
        *("data.message.number", "data.message.accepted_at", "data.message.valid_until", "data.message.priority"),
        *("data.message.sender_id", "data.message.tags", "data.message.allow_unknown_number"),
        *("data.requested_by", "data.custom_data", "data.message.scheduled_at", "data.message.batch_id"),
        "data.message.batch_size",
    ),
    {"data.message.text": ""},
)
_RETURNED = _Form(
    SmsReturned,
    "data.leg.leg_at",
    ("source", *_PERSON_OF_MESSAGE, *_LEG, "data.reason", "data.refused_part", "data.refused_try"),
    _NO_MESSAGE,
)
_DISPATCH = _Form(
    SmsDispatch,
    "data.decided_at",
    (
        *("source", *_PERSON_OF_MESSAGE, *_LEG),
        *("data.gateway", "data.source_address", "data.encoding", "data.segments", "data.decided_at"),
    ),
    {**_NO_MESSAGE, "data.phone": "", "data.person_name": None},
)
_STATUS = _Form(
    SmsStatus,
    "data.observed_at",
    (
        *("source", *_PERSON, *_LEG),
        *("data.part", "data.parts", "data.try_number", "data.status", "data.observed_at"),
        *("data.gateway", "data.provider_id", "data.reference", "data.reason", "data.carrier_time"),
    ),
    {},
)
_DEFERRED = _Form(
    SmsDeferred,
    "data.deferred_at",
    (
        *("source", *_PERSON_OF_MESSAGE, *_LEG),
        *("data.due_at", "data.deferred_at", "data.reason", "data.refused_part", "data.refused_try"),
    ),
    _NO_MESSAGE,
)
_COMMAND = _Form(
    SmsCommand,
    "data.asked_at",
    ("source", *_PERSON, "data.kind", "data.cycle", "data.asked_at"),
    {},
)
_FORMS = {1: _REQUESTED, 2: _RETURNED, 3: _DISPATCH, 4: _STATUS, 5: _DEFERRED, 6: _COMMAND}


def _writer(number: int, form: _Form) -> Callable[[AnyMessageEvent], tuple[object, ...]]:
    """One expression of all fields: an attrgetter takes three times as long."""
    fields = ", ".join(f"event.{path}" for path in form.fields)
    return eval(f"lambda event: ({number}, {fields})")  # noqa: S307 - our own words


_WRITERS = {form.data: _writer(number, form) for number, form in _FORMS.items()}

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[bytes, str, list[Any]]]).decode
_decode_ids = msgspec.msgpack.Decoder(list[tuple[bytes, str, msgspec.Raw]]).decode


NO_UUID = Reason("event-id", "The event's id is no UUID")


def id_of(event: AnyMessageEvent) -> bytes:
    """The 16 octets of an event's id. Raises BadRecord if it is no UUID."""
    text = event.id
    if len(text) != 32:
        text = text.replace("-", "")
    try:
        octets = bytes.fromhex(text)
    except ValueError:
        octets = b""
    if len(octets) != 16:
        raise BadRecord(NO_UUID)
    return octets


NewLine = tuple[bytes, str, tuple[object, ...]]
"""What an entry has of an event: its id, its topic, and what the journal keeps of it."""


def line_of(id_: bytes, topic: str, event: AnyMessageEvent) -> NewLine:
    """What the journal keeps of an event."""
    return (id_, topic, _WRITERS[event.data.__class__](event))


def entry_of(message_id: UUID, lines: list[NewLine]) -> NewEntry:
    """The lines of events about this message."""
    try:
        body = _encode(lines)
    except OverflowError:  # the only dictionary is the custom data; any other number so great is an error
        body = _encode([(id_, topic, [_storable(each) for each in values]) for id_, topic, values in lines])
    return (message_id, min(lines)[0].hex(), body)


def _storable(value: object) -> object:
    return storable_data(value) if isinstance(value, dict) else value


def lines_in(message_id: UUID, body: bytes) -> list[Line]:
    """The lines of an entry. Raises msgspec.MsgspecError if it is none."""
    return [Line(message_id, *line) for line in _decode(body)]


def ids_in(body: bytes) -> list[bytes]:
    """The ids of an entry's events. None of one that can't be read: to say so is for those who fold the journal."""
    try:
        return [id_ for id_, _, _ in _decode_ids(body)]
    except msgspec.MsgspecError:
        return []


def event_of(line: Line) -> AnyMessageEvent:
    """The event that a line was made of, blank where it is left out. Raises KeyError or ValueError if it is none."""
    number, *values = line.values
    form = _FORMS[number]
    event: dict[str, Any] = {"id": line.event_id.hex(), "type": type_name(form.data), "subject": line.message_id}
    for path, value in (*form.blanks.items(), *zip(form.fields, values, strict=False)):
        *holders, name = path.split(".")
        holder = event
        for each in holders:
            holder = holder.setdefault(each, {})
        holder[name] = value
    event["time"] = reduce(getitem, form.time.split("."), event)
    return msgspec.convert(event, event_class(form.data))
