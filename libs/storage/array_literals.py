"""Columns of a batch as PostgreSQL's array literals: `unnest($1::text::uuid[], $2::text::text[])`.

asyncpg asks of every element of an array whether it is an array itself, about 1 µs each; written by msgspec and read by the server,
an element costs both together a third of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

_encode = msgspec.json.Encoder(uuid_format="hex").encode


def array_literal(values: Sequence[UUID | datetime | int | bool | str | None]) -> str:
    """One dimension, None as NULL. Times need their zone. Texts may hold anything that PostgreSQL's text does (no NUL)."""
    literal = _encode(values)[1:-1].decode()
    if "\\" in literal:  # JSON and array literals escape quotes and backslashes alike, but nothing else
        literal = ",".join([_quoted(value) if isinstance(value, str) else _encode(value).decode() for value in values])
    return "{" + literal + "}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
