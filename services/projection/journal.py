"""The journal's lines: an event without number and text, and without what the other columns say; and the event again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from libs.contracts.events import MessageEvent, SmsDispatch, SmsRequested, SmsReturned, SmsStatus, type_name
from libs.contracts.fold import AnyMessageEvent

_FOLDED: dict[str, type[AnyMessageEvent]] = {
    type_name(SmsRequested): MessageEvent[SmsRequested],
    type_name(SmsReturned): MessageEvent[SmsReturned],
    type_name(SmsDispatch): MessageEvent[SmsDispatch],
    type_name(SmsStatus): MessageEvent[SmsStatus],
}
_IN_COLUMNS = ("id", "type", "subject")
_CONSTANT = ("specversion", "datacontenttype")
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
    """What the journal keeps of an event. `message.text`, `phone`, `person_name` and `destination` are left out."""
    body: dict[str, Any] = msgspec.to_builtins(event)
    for name in _IN_COLUMNS + _CONSTANT:
        del body[name]
    data = {name: value for name, value in body["data"].items() if value is not None}
    data.pop("phone", None)
    data.pop("person_name", None)
    data.pop("destination", None)
    if "message" in data:
        del data["message"]["text"]
    body["data"] = data
    if event.traceparent is None:
        del body["traceparent"]
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
