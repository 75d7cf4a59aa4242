"""Events as bytes and back: the contracts' own dataclasses, read and written by msgspec (about 3 and 5 µs an event).

pydantic describes and documents the same classes; the tests hold both to the same answers. What msgspec does not know of the
contracts, pydantic's `Field` constraints, is read from the annotations once and checked after decoding.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
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


def message_key(message_id: UUID) -> bytes:
    """The Kafka key of what is about one message: its id as text."""
    return encode(message_id)[1:-1]


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
    checks = [_Check("type", f"event.type == {expected!r}", f"the event type `{expected}`"), _zone("time")]
    checks += _checks_of(data, "data.")
    valid = _all(checks)

    def decode(value: bytes) -> E:
        try:
            result = read(value)
        except msgspec.MsgspecError as error:
            raise Undecodable(_without_content(str(error))) from None
        except UnicodeDecodeError:
            raise Undecodable("The text is not UTF-8") from None
        except RecursionError:
            raise Undecodable("JSON is nested too deeply") from None
        if not valid(result):
            wrong = next(check for check in checks if not _all([check])(result))
            raise Undecodable(f"Expected {wrong.words} - at `$.{wrong.path}`")
        return result

    return decode


class _Source(msgspec.Struct):
    source: str


_read_source = msgspec.json.Decoder(_Source).decode


def said_by(source: str) -> Callable[[bytes], bool]:
    """Tells of an event's bytes whether it names this source, for a sixth of what decoding costs. What is no JSON names none."""
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


def _without_content(words: str) -> str:
    """msgspec quotes the value only for enumerations and literals, always before the path."""
    kind, at, path = words.rpartition(" - at `")
    if words.startswith("Invalid enum value"):
        return f"Invalid enum value{at}{path}" if kind else "Invalid enum value"
    return words


class _Check(NamedTuple):
    """What a field of an event must be: as an expression over `event`, and in words. `names` are what the expression uses beside it."""

    path: str
    expression: str
    words: str
    names: Mapping[str, object] = {}


def _all(checks: Sequence[_Check]) -> Callable[[object], bool]:
    """One expression of them all: a check costs some 20 ns then, and several times that as a call of its own."""
    names = {name: value for check in checks for name, value in check.names.items()}
    return eval("lambda event: " + " and ".join(f"({check.expression})" for check in checks), names)  # noqa: S307 - our own words


def _zone(path: str) -> _Check:
    expression = f"event.{path} is None or event.{path}.tzinfo is not None"
    return _Check(path, expression, "a time with its zone")


def _checks_of(cls: type, prefix: str) -> list[_Check]:
    """What must be checked in a data class and those nested in it."""
    hints = get_type_hints(cls, include_extras=True)
    found: list[_Check] = []
    for field in fields(cls):
        path = prefix + field.name
        hint = hints[field.name]
        for kind in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
            if kind is datetime:
                found.append(_zone(path))
            if get_origin(kind) is Annotated:
                found += _text(path, kind)
            if isinstance(kind, type) and is_dataclass(kind):
                inner = _checks_of(kind, f"{path}.")
                if kind is not hint and inner:
                    raise TypeError(f"{cls.__name__}.{field.name}: constraints within an optional object are not read")
                found += inner
    return found


def _text(path: str, kind: object) -> list[_Check]:
    """What a text must match, by the `Field` it is annotated with: a pattern, or bounds of length."""
    text, bounds = f"event.{path}", {"min_length": 0, "max_length": sys.maxsize}
    rules = [rule for each in get_args(kind)[1:] if isinstance(each, FieldInfo) for rule in each.metadata]
    for rule in rules:
        if pattern := getattr(rule, "pattern", None):
            name = "matches_" + path.replace(".", "_")
            matches = re.compile(pattern, re.DOTALL).fullmatch
            words = f"`str` matching {pattern}"
            return [_Check(path, f"{text} is None or {name}({text}) is not None", words, {name: matches})]
        known = [name for name in bounds if hasattr(rule, name)]
        if not known:
            raise TypeError(f"{rule!r}: this kind of constraint is not read")
        bounds.update({name: getattr(rule, name) for name in known})
    if not rules:
        return []
    low, high = bounds.values()
    words = f"`str` of {low} to {high} characters"
    return [_Check(path, f"{text} is None or {low} <= len({text}) <= {high}", words)]
