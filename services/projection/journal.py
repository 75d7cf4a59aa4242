"""The journal's lines: an event without number and text, and without what the other columns say; and the event again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
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

_FOLDED: dict[str, type[AnyMessageEvent]] = {
    type_name(SmsRequested): MessageEvent[SmsRequested],
    type_name(SmsReturned): MessageEvent[SmsReturned],
    type_name(SmsDeferred): MessageEvent[SmsDeferred],
    type_name(SmsDispatch): MessageEvent[SmsDispatch],
    type_name(SmsStatus): MessageEvent[SmsStatus],
    type_name(SmsCommand): MessageEvent[SmsCommand],
}
_PERSONAL = frozenset({"phone", "person_name", "destination"})
"""Fields of an event's data that are left out; the text of `message` is too."""
_BLANK: dict[str, Any] = {"phone": "", "person_name": None, "source_address": None}
"""What `SmsDispatch` can't do without and a line may lack: personal data, and nulls, which are not written."""

_encode = msgspec.json.Encoder().encode
_decode: Callable[[str], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode


class Line(NamedTuple):
    """One row of `events`. `event_id` is 32 hex digits; Postgres keeps it as a uuid."""

    message_id: UUID
    event_id: str
    type: str
    topic: str
    body: str


def line_of(event: AnyMessageEvent, topic: str) -> Line:
    """What the journal keeps of an event: not its personal data, no nulls, and of the envelope only what varies."""
    data: dict[str, Any] = msgspec.to_builtins(event.data, builtin_types=(datetime,))
    if "message" in data:
        del data["message"]["text"]
    body: dict[str, Any] = {"source": event.source, "time": event.time}
    if event.traceparent is not None:
        body["traceparent"] = event.traceparent
    body["data"] = {name: value for name, value in data.items() if value is not None and name not in _PERSONAL}
    return Line(event.subject, event.id, event.type, topic, _encode(body).decode())


def event_of(line: Line) -> AnyMessageEvent:
    """The event that a line was made of, with empty text and number. Raises KeyError or ValueError if it is none."""
    body = _decode(line.body)
    data: Mapping[str, Any] = body["data"]
    if "message" in data:
        data = {**_BLANK, **data, "message": {**data["message"], "text": ""}}
    event: AnyMessageEvent = msgspec.convert(
        {**body, "id": line.event_id, "type": line.type, "subject": line.message_id, "data": data}, _FOLDED[line.type]
    )
    return event
