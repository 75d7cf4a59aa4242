"""Events that are made to be encoded at once: the contracts' frozen dataclasses cost several times what their stand-ins do."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def stand_in(data: type[T]) -> type[T]:
    """A class with the fields, the defaults and the JSON of this dataclass, but made by msgspec in C, by keywords alone.

    Its instances are no instances of `data`: encode them and let go of them.
    """
    made: list[tuple[str, Any, Any]] = [
        (field.name, Any, msgspec.NODEFAULT if field.default is MISSING else field.default)
        for field in fields(data)  # pyright: ignore[reportArgumentType] - a dataclass, which type[T] can't say
    ]
    quick: Any = msgspec.defstruct(data.__name__, made, kw_only=True, gc=False)
    return quick
