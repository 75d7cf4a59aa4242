"""Array literals say to PostgreSQL what the values are."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import pytest

from libs.storage.array_literals import array_literal
from tests.conftest import DatabaseFactory

TEXTS = ["", "null", None, "a,b", "{}", " x ", 'quoted "so"', "back\\slash", "line\nbreak\ttab", "\x01", "ﷺ 🙂"]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("uuid", [uuid4(), uuid4()]),
        ("timestamptz", [datetime(2026, 11, 21, 5, 30, 1, 234567, tzinfo=UTC), None]),
        ("smallint", [1, None, -3]),
        ("boolean", [True, False]),
        ("text", TEXTS),
        ("text", [text for text in TEXTS if text is None or text.isprintable()]),
        ("int", []),
    ],
)
async def test_what_is_written_is_what_the_server_reads(
    postgres: DatabaseFactory, kind: str, values: Sequence[object]
) -> None:
    connection = await asyncpg.connect(await postgres())
    try:
        read = await connection.fetchval(f"SELECT $1::text::{kind}[]", array_literal(values))  # type: ignore[arg-type]
    finally:
        await connection.close()
    assert list(read) == list(values)
