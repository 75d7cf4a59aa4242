"""Folds made anew from the journal, by the functions that fold what comes from Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from uuid import UUID

import msgspec
from asyncpg import Record

from libs.contracts.fold import MessageFold, apply, new_fold
from services.projection.journal import Line, event_of, lines_in
from services.projection.store import Connection, Key

BATCH_ENTRIES = 10_000

_FIRST = UUID(int=0)
_LAST = UUID(int=(1 << 128) - 1)
_BATCH_ENDS_WITH = "SELECT message_id FROM events WHERE message_id > $1 ORDER BY message_id OFFSET $2 LIMIT 1"
_BATCH = "SELECT message_id, body FROM events WHERE message_id > $1 AND message_id <= $2"
_ENTRIES_OF = "SELECT message_id, body FROM events WHERE message_id = ANY($1)"


class UnreadableLine(Exception):
    """A line of the journal that is no event."""


async def whole_journal(connection: Connection, batch_entries: int = BATCH_ENTRIES) -> AsyncIterator[list[Line]]:
    """All lines, by batches of about so many entries, all that there are of their messages; the ids grow from batch to batch.

    Each batch is as the journal is when it is read: unless the caller's transaction says otherwise, no snapshot is kept meanwhile,
    which would keep Postgres from clearing away what the live table has replaced. Raises UnreadableLine.
    """
    after = _FIRST
    while after < _LAST:
        end: UUID = await connection.fetchval(_BATCH_ENDS_WITH, after, batch_entries - 1) or _LAST
        if lines := _lines(await connection.fetch(_BATCH, after, end)):
            yield lines
        after = end


async def lines_of(connection: Connection, message_ids: Sequence[UUID]) -> list[Line]:
    """All lines of these messages. Raises UnreadableLine."""
    return _lines(await connection.fetch(_ENTRIES_OF, message_ids))


def folds_of(lines: Iterable[Line]) -> dict[Key, MessageFold]:
    """The folds of the messages that the lines are about. Raises UnreadableLine."""
    folds: dict[Key, MessageFold] = {}
    for line in lines:
        try:
            event = event_of(line)
        except (KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
            raise _unreadable(f"event {line.event_id.hex()}", line.message_id, error) from None
        empty = new_fold(event)
        fold = folds.setdefault((line.message_id.int, empty.tenant), empty)
        apply(fold, event)
    return folds


def _lines(rows: Iterable[Record]) -> list[Line]:
    lines: list[Line] = []
    for row in rows:
        message_id: UUID = row["message_id"]
        try:
            lines += lines_in(message_id, row["body"])
        except msgspec.MsgspecError as error:
            raise _unreadable("an entry", message_id, error) from None
    return lines


def _unreadable(what: str, message_id: UUID, error: Exception) -> UnreadableLine:
    return UnreadableLine(f"{what} of message {message_id} can't be read from the journal: {type(error).__name__}")
