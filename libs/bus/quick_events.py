"""Events as msgspec's own structs: made, read and checked in C, for half of what the contracts' frozen dataclasses cost.

A struct is made from each data class, with its fields, defaults, constraints and JSON. It passes for that class: `isinstance`, `==`
and `__class__` find the contract's own, so whoever takes events need not know which kind they have. Its JSON leaves out what has its
default, a fifth of all octets, but for `specversion`, which CloudEvents asks for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import datetime
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from libs.contracts.upstream import decimal_text

T = TypeVar("T")

_TIME = Annotated[datetime, msgspec.Meta(tz=True)]


def quick(contract: type[T]) -> type[T]:
    """The struct that stands for a data class of the contracts, or for an event of one: `quick(MessageEvent[SmsStatus])`.

    Raises TypeError for a constraint that msgspec is not told of here.
    """
    return _struct(contract)


@cache
def _struct(contract: Any) -> Any:
    envelope = get_origin(contract)
    cls: Any = envelope or contract
    hints = get_type_hints(cls, include_extras=True)
    constants: dict[str, object] = {"__class__": cls}
    if envelope is not None:
        (data,) = get_args(contract)
        hints |= {"data": data, "type": Literal[tuple(kind.TYPE for kind in get_args(data) or (data,))]}
    else:
        constants["TYPE"] = getattr(cls, "TYPE", None)
    kinds = {field.name: _checked(hints[field.name]) for field in fields(cls)}
    texts = {name: kind for name, kind in kinds.items() if _may_be_number(hints[name])}
    if texts:
        kinds |= {name: text | int for name, text in texts.items()}
        constants["__post_init__"] = _numbers_as_text(texts)
    made = [(field.name, kinds[field.name], _default(field)) for field in fields(cls)]
    keywords_alone = all(field.kw_only for field in fields(cls))
    return msgspec.defstruct(
        cls.__name__, made, namespace=constants, frozen=True, gc=False, kw_only=keywords_alone, omit_defaults=True
    )


def _default(field: Field[Any]) -> Any:
    if field.default is MISSING:
        return msgspec.NODEFAULT
    if field.name == "specversion":  # what a function makes is never taken for a default
        return msgspec.field(default_factory=lambda: field.default)
    return field.default


def _checked(hint: Any) -> Any:
    """A field's type in msgspec's terms, so that it checks what pydantic checks."""
    if hint is datetime:
        return _TIME
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(map(_checked, get_args(hint)))]  # noqa: UP007 - made at run time
    if get_origin(hint) is Annotated:
        kind, *notes = get_args(hint)
        rules = [rule for note in notes if isinstance(note, FieldInfo) for rule in note.metadata]
        constraints: dict[str, Any] = {}
        for rule in rules:
            found = {name: value for name in _CONSTRAINTS if (value := getattr(rule, name, None)) is not None}
            if not found:
                raise TypeError(f"{rule!r}: this kind of constraint is not read")
            constraints |= found
        if pattern := constraints.get("pattern"):
            constraints["pattern"] = re.sub(r"\$$", r"\\Z", pattern)  # Python's $ also stands before a last line break
        return Annotated[kind, msgspec.Meta(**constraints)]
    return _struct(hint) if is_dataclass(hint) else hint


def _may_be_number(hint: Any) -> bool:
    notes: tuple[object, ...] = getattr(hint, "__metadata__", ())
    return any(isinstance(note, BeforeValidator) and note.func is decimal_text for note in notes)


def _numbers_as_text(texts: dict[str, Any]) -> Callable[[Any], None]:
    """What is done to a struct once it is read: integers become their decimal text, if that is what these fields may be."""

    def replace(made: Any) -> None:
        for name, text in texts.items():
            if not isinstance(value := getattr(made, name), str):
                try:
                    checked = msgspec.convert(decimal_text(value), text)
                except msgspec.ValidationError as error:
                    raise ValueError(str(error)) from None  # to which msgspec adds where it is
                msgspec.structs.force_setattr(made, name, checked)

    return replace


_CONSTRAINTS = ("pattern", "min_length", "max_length")
