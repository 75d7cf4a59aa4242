"""What is older than it is kept: whole partitions are dropped, and rows elsewhere are deleted in batches.

A partition is detached first, under a lock on its table; then it is dropped, when nobody looks at it any more. What a crash leaves
between the two is found by its name and dropped the next time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import asyncpg
import structlog

from libs.contracts.message_ids import first_id, moment_of
from libs.service_kit.periodic import repeat
from libs.storage.command_tags import rows_of_tag
from libs.storage.partitions import (
    Connection,
    Partitioned,
    changing_partitions,
    key_column,
    make_ahead,
    partitions_of,
)

log = structlog.get_logger()

CHECK_SECONDS = 3600
LONGEST_KEPT_DAYS = 20_000
"""Partitions know no time before 1970."""
TRIES = 20
RETRY_SECONDS = 3.0
BATCH_ROWS = 5_000
PAUSE_SECONDS = 0.05
"""Between two batches of deletions, so that they take a share of the disk and not all of it."""

_DETACHED = """
    SELECT c.relname AS name FROM pg_class c
     WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
       AND c.relname ~ ('^' || $1 || '_[0-9]{8}$')"""
_END = re.compile(r"TO \('([^']+)'\)$")


async def keep_partitions(pool: asyncpg.Pool, tables: tuple[Partitioned, ...], keep_days: int) -> None:
    """Make partitions ahead, and let go of what is older than so many days: now and then every hour, for ever."""

    async def work() -> None:
        now = datetime.now(UTC)
        await _once_free(pool, partial(make_ahead, tables=tables, now=now))
        await drop_old(pool, tables, now - timedelta(days=keep_days))

    await repeat("making and dropping of partitions", CHECK_SECONDS, work)


async def keep_days(what: str, days: int, forget: Callable[[datetime], Awaitable[object]]) -> None:
    """Let go of what is older than so many days: now and then every hour, for ever. `forget` deletes what is before a moment."""
    await repeat(f"deletion of {what}", CHECK_SECONDS, lambda: forget(datetime.now(UTC) - timedelta(days=days)))


async def drop_old(pool: asyncpg.Pool, tables: Sequence[Partitioned], before: datetime) -> None:
    """Drop the partitions that hold only what is older than a moment, and delete such rows of the default partitions.

    A span goes from all tables at once, so that whoever compares them finds all of it or nothing. They are locked in their order, which is
    to be that of their writers. Raises LockNotAvailableError when a table was busy all the time.
    """
    async with pool.acquire() as connection:
        ends = {end for table in tables for _, end in await _ended(connection, table) if end <= before}
    for end in sorted(ends):
        await _once_free(pool, partial(_detach, tables=tables, end=end))
    for table in tables:
        async with pool.acquire() as connection:
            for row in await connection.fetch(_DETACHED, table.table):
                await connection.execute(f"DROP TABLE IF EXISTS {row['name']}")
                log.info("partition dropped", table=table.table, partition=row["name"])
        await _empty_default(pool, table, before)


async def delete_old(pool: asyncpg.Pool, table: str, column: str, before: object) -> None:
    """Delete the rows in which a column, which has an index, is less than this value of its type. What another has locked is left for the
    next time: nobody waits for it, and replicas that delete at once take turns."""
    statement = (
        f"DELETE FROM {table} WHERE ctid = ANY (ARRAY("  # noqa: S608 - names are ours
        f"SELECT ctid FROM {table} WHERE {column} < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))"
    )

    async def delete() -> int:
        return rows_of_tag(await pool.execute(statement, before, BATCH_ROWS))

    await in_batches(table, delete)


async def in_batches(what: str, delete: Callable[[], Awaitable[int]]) -> None:
    """Delete a batch, which says how many rows it was, again and again until it finds none."""
    total = 0
    while rows := await delete():
        total += rows
        await asyncio.sleep(PAUSE_SECONDS)
    if total:
        log.info("old rows deleted", what=what, rows=total)


async def _ended(connection: Connection, table: Partitioned) -> list[tuple[str, datetime]]:
    """The partitions with the moment at which each ends; the default one has none."""
    found: list[tuple[str, datetime]] = []
    for name, bound in (await partitions_of(connection, table)).items():
        if end := _END.search(bound):
            text = end[1]
            at = moment_of(UUID(text)) if table.by_uuid else datetime.fromisoformat(text)
            found.append((name, at))
    return found


async def _once_free(pool: asyncpg.Pool, change: Callable[[Connection], Awaitable[None]]) -> None:
    """Change partitions, again and again while a table is busy. Raises LockNotAvailableError when one was all the time."""
    for left in reversed(range(TRIES)):
        try:
            async with pool.acquire() as connection:
                await change(connection)
            return
        except asyncpg.LockNotAvailableError:
            if not left:
                raise
        await asyncio.sleep(RETRY_SECONDS)


async def _detach(connection: Connection, tables: Sequence[Partitioned], end: datetime) -> None:
    """CONCURRENTLY would wait for nobody, but Postgres refuses it beside a default partition."""
    async with changing_partitions(connection):
        for table in tables:
            for name in [name for name, at in await _ended(connection, table) if at == end]:
                await connection.execute(f"ALTER TABLE {table.table} DETACH PARTITION {name}")


async def _empty_default(pool: asyncpg.Pool, table: Partitioned, before: datetime) -> None:
    async with pool.acquire() as connection:
        column = await key_column(connection, table)
    await delete_old(pool, f"{table.table}_default", column, first_id(before) if table.by_uuid else before)
