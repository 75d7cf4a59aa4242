"""Partitions by time, made ahead of need and dropped by age: by a timestamp column, or by the time inside a UUIDv7.

Both kinds have a default partition, so that a row whose time nobody foresaw is stored and not refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

Connection = asyncpg.pool.PoolConnectionProxy | asyncpg.Connection

AHEAD = 3
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Partitioned:
    """A table partitioned by range: `by_uuid` when its key is a UUIDv7 column, else a timestamptz column. Spans are whole days.

    `fillfactor` (percent) below 100 leaves room in each page, so that rows updated soon after stay in it.
    """

    table: str
    by_uuid: bool
    days: int = 7
    fillfactor: int = 100


def first_uuid(at: datetime) -> UUID:
    """The smallest UUIDv7 of a moment, in whole milliseconds: a bound, never a message id (RFC 9562 §5.7). From 1970 on."""
    return UUID(int=(at - EPOCH) // timedelta(milliseconds=1) << 80)


def milliseconds_of(key: UUID) -> timedelta:
    """The time in a UUIDv7 since 1970."""
    return timedelta(milliseconds=key.int >> 80)


def span(table: Partitioned, at: datetime) -> tuple[datetime, datetime]:
    """Start and end of the partition that holds a moment."""
    days = (at - EPOCH).days // table.days * table.days
    start = EPOCH + timedelta(days=days)
    return start, start + timedelta(days=table.days)


async def make_ahead(connection: Connection, tables: tuple[Partitioned, ...], now: datetime) -> None:
    """Make the partitions of now and of the next spans, and one before, where they are missing. Call it in a transaction."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtext('postrider.partitions'))")
    for table in tables:
        for k in range(-1, AHEAD + 1):
            start, end = span(table, now + timedelta(days=k * table.days))
            low, high = (
                (str(first_uuid(start)), str(first_uuid(end)))
                if table.by_uuid
                else (start.isoformat(), end.isoformat())
            )
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {table.table}_{start:%Y%m%d} PARTITION OF {table.table}"
                f" FOR VALUES FROM ('{low}') TO ('{high}') WITH (fillfactor = {table.fillfactor})"
            )
