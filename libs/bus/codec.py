"""Events as bytes and back: the contracts' own dataclasses, read and written by msgspec (about 3 and 5 µs an event).

pydantic describes and documents the same classes; the tests hold both to the same answers. What msgspec does not know of the
contracts, pydantic's `Field` constraints, is read from the annotations once and checked after decoding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from datetime import datetime
from operator import attrgetter
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec
from pydantic.fields import FieldInfo

from libs.bus.errors import Undecodable as Undecodable
from libs.contracts.events import Event, MessageEvent
from libs.contracts.topics import Topic

E = TypeVar("E")
AnyEvent: TypeAlias = MessageEvent[Any] | Event[Any]
Decode: TypeAlias = Callable[[bytes], AnyEvent]

encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
"""An event as JSON. Times in UTC end in `Z`; every field is written, also those that are null."""


def decoder(topic: Topic) -> Decode:
    """Reads the events of a topic."""
    envelope: Any = MessageEvent if topic.about_message else Event
    event: type[AnyEvent] = envelope[topic.data]
    return decoder_for(event)


def decoder_for(event: type[E]) -> Callable[[bytes], E]:
    """Reads one type of event, as in `decoder_for(MessageEvent[SmsStatus])`.

    The function raises `Undecodable` for anything else: broken JSON, a missing field, a wrong type, a time without zone.
    """
    data: type = get_args(event)[0]
    expected: str = getattr(data, "TYPE")  # noqa: B009 - every data class has it; `type` does not say so
    read = msgspec.json.Decoder(event).decode
    type_of = attrgetter("type")
    rules = tuple(_rules(data, "data."))

    def decode(value: bytes) -> E:
        try:
            result = read(value)
        except msgspec.MsgspecError as error:
            raise Undecodable(_without_content(str(error))) from None
        except UnicodeDecodeError:
            raise Undecodable("The text is not UTF-8") from None
        except RecursionError:
            raise Undecodable("JSON is nested too deeply") from None
        if type_of(result) != expected:
            raise Undecodable(f"Expected the event type `{expected}` - at `$.type`")
        for rule in rules:
            found = rule.of(result)
            if found is not None and not rule.holds(found):
                raise Undecodable(f"{rule.words} - at `$.{rule.path}`")
        return result

    return decode


class _Subject(msgspec.Struct):
    subject: UUID


_read_subject = msgspec.json.Decoder(_Subject).decode


def message_id_of(value: bytes | None) -> UUID | None:
    """The message that an event is about, as far as it can be told when the event itself can't be decoded."""
    try:
        return _read_subject(value or b"").subject
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _without_content(words: str) -> str:
    """msgspec quotes the value only for enumerations and literals, always before the path."""
    kind, at, path = words.rpartition(" - at `")
    if words.startswith("Invalid enum value"):
        return f"Invalid enum value{at}{path}" if kind else "Invalid enum value"
    return words


class _Rule(NamedTuple):
    path: str
    of: Callable[[object], Any]
    holds: Callable[[Any], bool]
    words: str


def _rules(cls: type, prefix: str) -> Iterator[_Rule]:
    """The constraints on a data class's fields, those of nested ones included."""
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        path = prefix + field.name
        for kind in _alternatives(hints[field.name]):
            for holds, words in _tests(kind):
                yield _Rule(path, attrgetter(path), holds, words)
            if is_dataclass(kind) and isinstance(kind, type):
                inner = tuple(_rules(kind, f"{path}."))
                if inner and kind is not hints[field.name]:
                    raise TypeError(f"{cls.__name__}.{field.name}: constraints within an optional object are not read")
                yield from inner


def _alternatives(hint: object) -> tuple[object, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _tests(kind: object) -> Iterator[tuple[Callable[[Any], bool], str]]:
    if kind is datetime:
        yield _has_zone, "Expected a time with its zone"
    if get_origin(kind) is not Annotated:
        return
    for annotation in get_args(kind)[1:]:
        for rule in annotation.metadata if isinstance(annotation, FieldInfo) else ():
            if pattern := getattr(rule, "pattern", None):
                yield _matches(pattern), f"Expected `str` matching {pattern}"
            if (least := getattr(rule, "min_length", None)) is not None:
                yield _at_least(least), f"Expected `str` of length >= {least}"
            if (most := getattr(rule, "max_length", None)) is not None:
                yield _at_most(most), f"Expected `str` of length <= {most}"


def _has_zone(time: datetime) -> bool:
    return time.tzinfo is not None


def _matches(pattern: str) -> Callable[[str], bool]:
    match = re.compile(pattern).fullmatch
    return lambda value: match(value) is not None


def _at_least(length: int) -> Callable[[str], bool]:
    return lambda value: len(value) >= length


def _at_most(length: int) -> Callable[[str], bool]:
    return lambda value: len(value) <= length
