"""Partitions by time, made ahead of need and dropped by age: by a timestamp column, or by the time inside a UUIDv7.

Both kinds have a default partition, `<table>_default`, so that a row whose time nobody foresaw is stored and not refused.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import structlog

from libs.contracts.message_ids import first_id
from libs.storage.command_tags import rows_of_tag

Connection = asyncpg.pool.PoolConnectionProxy | asyncpg.Connection

log = structlog.get_logger()

AHEAD = 3
LOCK_MILLISECONDS = 200
STATEMENT_MILLISECONDS = 2_000
"""Shorter than a dispatcher's lease, whose renewal may have to wait for it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


_PARTITIONS = """
    SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bound
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = $1::regclass ORDER BY c.relname"""


@dataclass(frozen=True, slots=True)
class Partitioned:
    """A table partitioned by range: `by_uuid` when its key is a UUIDv7 column, else a timestamptz column. Spans are whole days.

    `fillfactor` (percent) below 100 leaves room in each page, so that rows updated soon after stay in it.
    """

    table: str
    by_uuid: bool
    days: int = 7
    fillfactor: int = 100


def span(table: Partitioned, at: datetime) -> tuple[datetime, datetime]:
    """Start and end of the partition that holds a moment."""
    days = (at - _EPOCH).days // table.days * table.days
    start = _EPOCH + timedelta(days=days)
    return start, start + timedelta(days=table.days)


async def make_ahead(connection: Connection, tables: tuple[Partitioned, ...], now: datetime) -> None:
    """Make the partitions of now and of the next spans, and one before, where they are missing: each in a transaction of its own.

    What can't be made is logged, and its rows go on to the default partition. Raises LockNotAvailableError when a table was busy; the
    other ones' are made all the same.
    """
    busy: asyncpg.LockNotAvailableError | None = None
    for table in tables:
        there = await partitions_of(connection, table)
        for k in range(-1, AHEAD + 1):
            start, end = span(table, now + timedelta(days=k * table.days))
            name = f"{table.table}_{start:%Y%m%d}"
            if name in there:
                continue
            try:
                await _make(connection, table, name, start, end)
            except asyncpg.LockNotAvailableError as error:
                busy = error
                break
            except asyncpg.PostgresError as error:
                log.error("partition not made", partition=name, reason=type(error).__name__)
    if busy is not None:
        raise busy


async def _make(connection: Connection, table: Partitioned, name: str, start: datetime, end: datetime) -> None:
    """Rows of its span move into it from the default partition: while they are there, Postgres would refuse it."""
    low, high = (str(first_id(at)) if table.by_uuid else at.isoformat() for at in (start, end))
    parent, default = table.table, f"{table.table}_default"
    async with changing_partitions(connection):
        if name in await partitions_of(connection, table):
            return
        # In the order in which readers take them.
        await connection.execute(f"LOCK TABLE ONLY {parent}; LOCK TABLE {default}")
        await connection.execute(
            f"CREATE TABLE {name} (LIKE {parent} INCLUDING ALL) WITH (fillfactor = {table.fillfactor})"
        )
        key = await key_column(connection, table)
        tag = await connection.execute(
            f"WITH moved AS (DELETE FROM {default} WHERE {key} >= '{low}' AND {key} < '{high}' RETURNING *)"  # noqa: S608 - names are ours
            f" INSERT INTO {name} SELECT * FROM moved"
        )
        await connection.execute(
            f"ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ('{low}') TO ('{high}')"
        )
    if rows := rows_of_tag(tag):
        log.info("rows moved from the default partition", partition=name, rows=rows)


@asynccontextmanager
async def changing_partitions(connection: Connection) -> AsyncGenerator[None]:
    """A transaction in which partitions come or go, one transaction at a time.

    Its locks are waited for a fraction of a second (LockNotAvailableError), and no statement takes longer than two (QueryCanceledError),
    since whoever reads or writes the table waits behind it.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('postrider.partitions'))")
        await connection.execute(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")
        await connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_MILLISECONDS}")
        yield


async def partitions_of(connection: Connection, table: Partitioned) -> dict[str, str]:
    """The names of its partitions, each with its bounds as Postgres writes them. Waits for nobody who reads or writes."""
    return {row["name"]: row["bound"] for row in await connection.fetch(_PARTITIONS, table.table)}


async def key_column(connection: Connection, table: Partitioned) -> str:
    """The column by which it is partitioned."""
    key: str = await connection.fetchval("SELECT pg_get_partkeydef($1::regclass)", table.table)
    return key.removeprefix("RANGE (").removesuffix(")")
