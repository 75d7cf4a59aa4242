"""Events as bytes and back (about 2 and 2 µs an event).

pydantic describes and documents the same classes; the tests hold both to the same answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, get_args
from uuid import UUID

import msgspec

from libs.bus.errors import Undecodable
from libs.bus.port import Topics
from libs.bus.quick_events import quick
from libs.contracts.events import Event, MessageEvent, event_class, type_name
from libs.contracts.topics import Topic

E = TypeVar("E")
AnyEvent: TypeAlias = MessageEvent[Any] | Event[Any]
Decode: TypeAlias = Callable[[bytes | None], Any]

encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
"""An event as JSON. Times in UTC end in `Z`."""


def message_key(message_id: UUID) -> bytes:
    """The Kafka key of what is about one message: its id as text."""
    return encode(message_id)[1:-1]


def decoder(topic: Topic) -> Decode:
    """Reads the events of a topic."""
    return decoder_for(event_class(topic.data))


class Decoders(dict[str, Decode]):
    """Reads the events of these topics: `decoders["sms.status"](value)`. Another topic's name raises ValueError."""

    def __init__(self, topics: Topics) -> None:
        super().__init__()
        self._topics = topics

    def __missing__(self, name: str) -> Decode:
        for topic in self._topics:
            declared = topic if isinstance(topic, Topic) else topic.topic(name)
            if declared is not None and declared.name == name:
                self[name] = decoder(declared)
                return self[name]
        raise ValueError(f"no events are declared for the topic {name}")


def decoder_for(event: type[E]) -> Callable[[bytes | None], E]:
    """Reads one type of event, as in `decoder_for(MessageEvent[SmsStatus])`, into the struct that stands for it (`quick_events`).

    The function raises `Undecodable` for anything else: nothing, broken JSON, a missing field, a wrong type, a time without zone.
    """
    expected = type_name(get_args(event)[0])
    read = msgspec.json.Decoder(quick(event)).decode

    def decode(value: bytes | None) -> E:
        if value is None:
            raise Undecodable("The record has no value")
        try:
            return read(value)
        except msgspec.MsgspecError as error:
            raise Undecodable(_without_content(str(error), expected)) from None
        except UnicodeDecodeError:
            raise Undecodable("The text is not UTF-8") from None
        except RecursionError:
            raise Undecodable("JSON is nested too deeply") from None

    return decode


class _Source(msgspec.Struct):
    source: str


_read_source = msgspec.json.Decoder(_Source).decode


def said_by(source: str) -> Callable[[bytes], bool]:
    """Tells from an event's bytes whether it names this source, for a sixth of what decoding costs. What is no JSON names none."""
    mark = source.encode()

    def said(value: bytes) -> bool:
        try:
            return mark in value and _read_source(value).source == source
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False

    return said


class _Subject(msgspec.Struct):
    subject: UUID


_read_subject = msgspec.json.Decoder(_Subject).decode


def message_id_of(value: bytes | None) -> UUID | None:
    """The message that an event is about, as far as it can be told when the event itself can't be decoded."""
    try:
        return _read_subject(value or b"").subject
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


_SUBJECT = b'"subject":"'
_ID_BEGINS, _ID_ENDS = len(_SUBJECT), len(_SUBJECT) + 36


def subject_of(value: bytes | None) -> bytes:
    """The id of the message that an event is about, as its bytes write it, found without decoding it (a seventh of the cost).

    It is empty, or something else, where the bytes are not as `encode` writes them.
    """
    if value is None or (at := value.find(_SUBJECT)) < 0:
        return b""
    return value[at + _ID_BEGINS : at + _ID_ENDS]


def _without_content(words: str, expected_type: str) -> str:
    """msgspec quotes the value only for enumerations and literals, always before the path."""
    kind, at, path = words.rpartition(" - at `")
    if path == "$.type`" and words.startswith("Invalid enum value"):
        return f"Expected the event type `{expected_type}`{at}{path}"
    if words.startswith("Invalid enum value"):
        return f"Invalid enum value{at}{path}" if kind else "Invalid enum value"
    return words
