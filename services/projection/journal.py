"""The journal's lines: an event without number and text, and without what follows from the rest; and the event again.

A line's body is an array: the number of a form, then the values of that form's fields. A form may grow at its end, by fields that have a
default (an older line just ends sooner); any other change, and another version of an event, is a new form with the next number.

What a message's request says, text and number aside, is in the line of the request alone, and so is the trace: every later event of the
message passes both on. An event's time is that of its cause, which its data has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from libs.contracts.events import (
    MessageEvent,
    SmsCommand,
    SmsDeferred,
    SmsDispatch,
    SmsRequested,
    SmsReturned,
    SmsStatus,
    type_name,
)
from libs.contracts.fold import AnyMessageEvent
from services.projection.rows import storable_data

LEFT_OUT = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands where an event can't do without a time that its line does not have."""


NewLine = tuple[UUID, str, str, bytes]
"""A `Line` to be written, as plain a tuple as asyncpg copies fastest."""


class Line(NamedTuple):
    """One row of `events`. `event_id` is 32 hex digits; Postgres keeps it as a uuid."""

    message_id: UUID
    event_id: str
    topic: str
    body: bytes


@dataclass(frozen=True, slots=True)
class _Form:
    """How events with this data are written: `fields` are paths into them, `time` is where the data has the envelope's time."""

    data: type
    event: type[AnyMessageEvent]
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
    MessageEvent[SmsRequested],
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
    MessageEvent[SmsReturned],
    "data.leg.leg_at",
    ("source", *_PERSON_OF_MESSAGE, *_LEG, "data.reason", "data.refused_part", "data.refused_try"),
    _NO_MESSAGE,
)
_DISPATCH = _Form(
    SmsDispatch,
    MessageEvent[SmsDispatch],
    "data.decided_at",
    (
        *("source", *_PERSON_OF_MESSAGE, *_LEG),
        *("data.gateway", "data.source_address", "data.encoding", "data.segments", "data.decided_at"),
    ),
    {**_NO_MESSAGE, "data.phone": "", "data.person_name": None},
)
_STATUS = _Form(
    SmsStatus,
    MessageEvent[SmsStatus],
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
    MessageEvent[SmsDeferred],
    "data.deferred_at",
    (
        *("source", *_PERSON_OF_MESSAGE, *_LEG),
        *("data.due_at", "data.deferred_at", "data.reason", "data.refused_part", "data.refused_try"),
    ),
    _NO_MESSAGE,
)
_COMMAND = _Form(
    SmsCommand,
    MessageEvent[SmsCommand],
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
_decode: Callable[[bytes], list[Any]] = msgspec.msgpack.Decoder(list[Any]).decode


def line_of(message_id: UUID, event: AnyMessageEvent, topic: str) -> NewLine:
    """What the journal keeps of an event about this message."""
    values = _WRITERS[event.data.__class__](event)
    try:
        body = _encode(values)
    except OverflowError:  # the only dictionary is the custom data; any other number so great is an error
        body = _encode([storable_data(value) if isinstance(value, dict) else value for value in values])
    return (message_id, event.id, topic, body)


def event_of(line: Line) -> AnyMessageEvent:
    """The event that a line was made of, blank where it is left out. Raises KeyError or ValueError if it is none."""
    number, *values = _decode(line.body)
    form = _FORMS[number]
    event: dict[str, Any] = {"id": line.event_id, "type": type_name(form.data), "subject": line.message_id}
    for path, value in (*form.blanks.items(), *zip(form.fields, values, strict=False)):
        *holders, name = path.split(".")
        holder = event
        for each in holders:
            holder = holder.setdefault(each, {})
        holder[name] = value
    event["time"] = event["data"]
    for name in form.time.split(".")[1:]:
        event["time"] = event["time"][name]
    return msgspec.convert(event, form.event)
