"""What was first asked about a message, kept so that asking again, at any replica, publishes it under the same id and time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from libs.contracts.statuses import Status
from libs.storage.database import Pool

KEEP = timedelta(days=7)
TIMEOUT_SECONDS = 2.0

# The first to ask inserts. All others wait until that is committed; `_FIRST` then reads it with a snapshot of its own.
_ASK = """
INSERT INTO asked (message_id, cycle, what, asked_at, asked_by, traceparent) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (message_id, cycle, what) DO NOTHING
"""
_FIRST = "SELECT asked_at, asked_by, traceparent FROM asked WHERE message_id = $1 AND cycle = $2 AND what = $3"
_NEWEST = "SELECT max(cycle) FROM asked WHERE message_id = $1 AND what = $2"


class What(StrEnum):
    CANCEL = "cancel"
    RESEND = "resend"


def outcome_key(leg: int, status: Status) -> str:
    """What stands for a `What` where someone says what became of a leg."""
    return f"{status}.{leg}"


@dataclass(frozen=True, slots=True)
class Ask:
    """That something was asked: when, by which API key, in which trace."""

    asked_at: datetime
    asked_by: str
    traceparent: str


class AskedTable:
    """Of each thing asked, the first ask. Raises asyncpg's errors, OSError and TimeoutError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def first(self, what: str, message_id: UUID, cycle: int, now: Ask) -> Ask:
        """The first ask for this (a `What`, or an `outcome_key`): an earlier one, or `now`. Committed when it returns."""
        async with asyncio.timeout(TIMEOUT_SECONDS), self._pool.acquire() as connection:
            await connection.execute(_ASK, message_id, cycle, what, now.asked_at, now.asked_by, now.traceparent)
            row = await connection.fetchrow(_FIRST, message_id, cycle, what)
        return now if row is None else Ask(*row)

    async def newest(self, what: What, message_id: UUID) -> int | None:
        """The newest cycle for which this was asked."""
        async with asyncio.timeout(TIMEOUT_SECONDS), self._pool.acquire() as connection:
            return await connection.fetchval(_NEWEST, message_id, what)
