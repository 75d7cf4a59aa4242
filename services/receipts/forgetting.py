"""Deletes what is older than it is kept, in batches: the tables are not partitioned (docs/decisions/0009).

An id's rows go together, and under the lock of the id that submits and receipts take; whatever is locked now is left for the next time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from asyncpg import Record

from libs.storage.command_tags import rows_of_tag
from libs.storage.database import Pool
from libs.storage.retention import delete_old, in_batches

BATCH_IDS = 2_000

_KEYS = "unnest($1::text[], $2::text[]) AS k (gateway, provider_id)"
# OFFSET 0: one index probe per row, where a join would read the whole table for each batch.
_YOUNGER = """EXISTS (
    SELECT FROM provider_ids AS y
     WHERE (y.gateway, y.provider_id) = (p.gateway, p.provider_id) AND y.registered_at >= $1 OFFSET 0)"""
_PARKED = "EXISTS (SELECT FROM parked WHERE (parked.gateway, parked.provider_id) = (p.gateway, p.provider_id) OFFSET 0)"
# The second statement looks again, at what is true under the locks of the first.
_LOCK_OLD = f"""
    SELECT gateway, provider_id FROM provider_ids AS p
     WHERE reuse = 0 AND registered_at < $1 AND NOT {_YOUNGER} AND NOT {_PARKED}
     ORDER BY registered_at LIMIT $2 FOR UPDATE SKIP LOCKED"""  # noqa: S608
_DELETE_OLD = f"""
    DELETE FROM provider_ids AS p USING unnest($2::text[], $3::text[]) AS k (gateway, provider_id)
     WHERE (p.gateway, p.provider_id) = (k.gateway, k.provider_id) AND NOT {_YOUNGER} AND NOT {_PARKED}"""  # noqa: S608

_OLD_PARKED = "SELECT DISTINCT gateway, provider_id FROM parked WHERE observed_at < $1 LIMIT $2"
_LOCK = f"""
    SELECT p.gateway, p.provider_id FROM {_KEYS} JOIN provider_ids AS p USING (gateway, provider_id)
     WHERE p.reuse = 0 FOR UPDATE OF p SKIP LOCKED"""  # noqa: S608
_DELETE_PARKED = f"""
    DELETE FROM parked AS p USING {_KEYS}
     WHERE (p.gateway, p.provider_id) = (k.gateway, k.provider_id) AND p.observed_at < $3"""  # noqa: S608
_DELETE_EMPTY = f"""
    DELETE FROM provider_ids AS p USING {_KEYS}
     WHERE (p.gateway, p.provider_id) = (k.gateway, k.provider_id) AND p.message_id IS NULL AND NOT {_PARKED}"""  # noqa: S608


async def forget(pool: Pool, before: datetime) -> None:
    """Delete the ids, receipts and doubts that are older than a moment."""
    await in_batches("parked", partial(_forget_parked, pool, before))
    await in_batches("provider_ids", partial(_forget_ids, pool, before))
    await delete_old(pool, "doubts", "doubted_at", before)


async def _forget_ids(pool: Pool, before: datetime) -> int:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        keys = _columns(await connection.fetch(_LOCK_OLD, before, BATCH_IDS))
        return rows_of_tag(await connection.execute(_DELETE_OLD, before, *keys)) if keys else 0


async def _forget_parked(pool: Pool, before: datetime) -> int:
    """Parked receipts, and the ids that were known from them alone."""
    async with pool.acquire() as connection, connection.transaction():
        found = _columns(await connection.fetch(_OLD_PARKED, before, BATCH_IDS))
        keys = _columns(await connection.fetch(_LOCK, *found)) if found else ()
        if not keys:
            return 0
        deleted = rows_of_tag(await connection.execute(_DELETE_PARKED, *keys, before))
        await connection.execute(_DELETE_EMPTY, *keys)
        return deleted


def _columns(rows: Sequence[Record]) -> tuple[tuple[str, ...], ...]:
    """Rows as one tuple per column; none without rows."""
    return tuple(zip(*rows, strict=True))
