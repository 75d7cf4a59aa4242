"""Events as bytes and back: the contracts' own dataclasses, read and written by msgspec (about 3 and 5 µs an event).

pydantic describes and documents the same classes; the tests hold both to the same answers. What msgspec does not know of the
contracts, pydantic's `Field` constraints, is read from the annotations once and checked after decoding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from operator import attrgetter
from types import UnionType
from typing import Annotated, Any, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints
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
    times, texts = ["time"], dict[str, str]()
    _collect(data, "data.", times, texts)
    all_times, all_texts = _all_of(times), _all_of(texts)
    matches = [re.compile(pattern, re.DOTALL).fullmatch for pattern in texts.values()]

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
        for found in all_times(result):
            if found is not None and found.tzinfo is None:
                where = next(path for path in times if getattr(attrgetter(path)(result), "tzinfo", UTC) is None)
                raise Undecodable(f"Expected a time with its zone - at `$.{where}`")
        for found, match in zip(all_texts(result), matches, strict=True):
            if found is not None and match(found) is None:
                where = next(path for path, each in zip(texts, matches, strict=True) if each is match)
                raise Undecodable(f"Expected `str` matching {texts[where]} - at `$.{where}`")
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


def _all_of(paths: Iterable[str]) -> Callable[[object], tuple[Any, ...]]:
    """Reads several attributes at once, the fast way."""
    names = tuple(paths)
    if len(names) > 1:
        return attrgetter(*names)
    return lambda holder: tuple(attrgetter(name)(holder) for name in names)


def _collect(cls: type, prefix: str, times: list[str], texts: dict[str, str]) -> None:
    """Find what must be checked in a data class and those nested in it: paths of times, and of texts with their patterns."""
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        path = prefix + field.name
        hint = hints[field.name]
        for kind in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
            if kind is datetime:
                times.append(path)
            if pattern := _pattern(kind):
                texts[path] = pattern
            if isinstance(kind, type) and is_dataclass(kind):
                before = len(times) + len(texts)
                _collect(kind, f"{path}.", times, texts)
                if kind is not hint and len(times) + len(texts) > before:
                    raise TypeError(f"{cls.__name__}.{field.name}: constraints within an optional object are not read")


def _pattern(kind: object) -> str | None:
    """What a text must match, by the `Field` it is annotated with: its pattern, or its bounds of length as one."""
    if get_origin(kind) is not Annotated:
        return None
    bounds = {"min_length": "0", "max_length": ""}
    for rule in (rule for each in get_args(kind)[1:] if isinstance(each, FieldInfo) for rule in each.metadata):
        if pattern := getattr(rule, "pattern", None):
            return pattern
        known = [name for name in bounds if hasattr(rule, name)]
        if not known:
            raise TypeError(f"{rule!r}: this kind of constraint is not read")
        bounds.update({name: str(getattr(rule, name)) for name in known})
    return f"^.{{{bounds['min_length']},{bounds['max_length']}}}$"
