"""Compares the outbox with its journal, folded anew: every row of `messages`, every column but the count of its writes.

All in one snapshot of the database, so that it may run beside the projection. Personal data is not looked at.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

import msgspec
from msgspec.structs import replace

from services.projection import store
from services.projection.rebuild.refolding import folds_of, lines_of, whole_journal
from services.projection.rows import MessageRow, decode_fold, encode_fold, message_row
from services.projection.store import Connection

BATCH_ROWS = 5_000
WHOLE_TABLE_SECONDS = 3600.0


class How(StrEnum):
    DIFFERS = "is not what its events say"
    MISSING = "is missing"
    UNFOUNDED = "has no events"


class Difference(NamedTuple):
    """What is wrong with the row of a message."""

    message_id: UUID
    how: How

    def __str__(self) -> str:
        return f"{self.message_id} {self.how}"


async def differences(connection: Connection, compared: Callable[[int], None]) -> AsyncIterator[Difference]:
    """Every row that a rebuild would change. `compared` hears, now and then, how many messages have been.

    Raises UnreadableLine, and asyncpg's and the system's errors.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        # Before the first read makes the snapshot: a table that a rebuild put in this one's place after it would look empty.
        await connection.execute("LOCK TABLE messages, events IN ACCESS SHARE MODE")
        found = total = 0
        async for lines in whole_journal(connection):
            folds = folds_of(lines)
            rows = await store.read_rows(connection, folds)
            for key, fold in folds.items():
                row, message_id = rows.get(key), UUID(int=key[0])
                if row is None:
                    yield Difference(message_id, How.MISSING)
                elif _as_of_now(row) != message_row(message_id, fold, row.version):
                    yield Difference(message_id, How.DIFFERS)
            found, total = found + len(rows), total + len(folds)
            compared(total)
        if found < await connection.fetchval("SELECT count(*) FROM messages", timeout=WHOLE_TABLE_SECONDS):
            async for message_id in _unfounded(connection):
                yield Difference(message_id, How.UNFOUNDED)


def _as_of_now(row: MessageRow) -> MessageRow:
    """What was stored before folds grew by a field, or with an empty array of tags, says the same without it."""
    try:
        fold = encode_fold(decode_fold(row.fold))
    except msgspec.MsgspecError:
        fold = row.fold
    return replace(row, tags=tuple(row.tags) if row.tags else None, fold=fold)


async def _unfounded(connection: Connection) -> AsyncIterator[UUID]:
    """The messages that have a row and no events of the row's tenant."""
    rows = await connection.cursor("SELECT tenant, message_id FROM messages", timeout=WHOLE_TABLE_SECONDS)
    while batch := await rows.fetch(BATCH_ROWS):
        founded = folds_of(await lines_of(connection, [row["message_id"] for row in batch]))
        for row in batch:
            if (row["message_id"].int, row["tenant"]) not in founded:
                yield row["message_id"]
