"""What was promised for each Idempotency-Key: reserved before publishing, so that a repeat after a crash publishes the same event."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from libs.bus.port import Outgoing
from libs.storage.database import Pool

CLAIM_SECONDS = 10
"""How long whoever claimed a key may take to publish it; after that a repeat publishes the stored event."""
KEEP = timedelta(hours=24)
TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a request with a key would publish if the key is new. `key` is tenant/API key/Idempotency-Key."""

    key: str
    body_hash: bytes
    message_id: UUID
    number: int
    record: Outgoing


@dataclass(frozen=True, slots=True)
class Publish:
    """The key is claimed by this request: publish `record`, its own or the one stored earlier, and answer these ids."""

    message_id: UUID
    number: int
    record: Outgoing


@dataclass(frozen=True, slots=True)
class Published:
    """Done before: answer these ids."""

    message_id: UUID
    number: int


@dataclass(frozen=True, slots=True)
class OtherBody:
    """The key was used for another body."""


@dataclass(frozen=True, slots=True)
class InProgress:
    """Someone else, possibly alive, is publishing it."""

    seconds_left: int


Verdict = Publish | Published | OtherBody | InProgress

_RESERVE = f"""
INSERT INTO idempotency_keys AS stored (key, body_hash, message_id, number, topic, record_key, event)
SELECT * FROM unnest($1::text[], $2::bytea[], $3::uuid[], $4::bigint[], $5::text[], $6::bytea[], $7::bytea[])
ON CONFLICT (key) DO UPDATE SET claimed_at = now()
  WHERE stored.event IS NOT NULL AND stored.body_hash = excluded.body_hash
    AND stored.claimed_at < now() - interval '{CLAIM_SECONDS} seconds'
RETURNING message_id
"""  # noqa: S608 - constants
# A claim that was given back is as old as its key: PostgreSQL 15 and 16 can't subtract its `claimed_at`, -infinity.
_STORED = """
SELECT key, body_hash, message_id, number, topic, record_key, event,
       extract(epoch FROM now() - greatest(claimed_at, reserved_at))::float8 AS age
FROM idempotency_keys WHERE key = ANY($1::text[])
"""
_KNOWN = "SELECT key FROM idempotency_keys WHERE key = ANY($1::text[]) AND reserved_at > now() - $2::interval"
_FORGET = "DELETE FROM idempotency_keys WHERE key = $1 AND event IS NOT NULL"
# In the order in which `_RESERVE` locks them: no deadlock. By itself an UPDATE may take them as they lie in the table.
_HELD = "WITH held AS (SELECT key FROM idempotency_keys WHERE key = ANY($1::text[]) ORDER BY key FOR UPDATE)"
_MARK = f"""
{_HELD} UPDATE idempotency_keys AS stored SET event = NULL, record_key = NULL FROM held WHERE stored.key = held.key
"""  # noqa: S608 - constants
_RELEASE = f"""
{_HELD} UPDATE idempotency_keys AS stored SET claimed_at = '-infinity'
  FROM held WHERE stored.key = held.key AND stored.event IS NOT NULL
"""  # noqa: S608 - constants


class Ledger:
    """The table of keys, and the sequence of numbers beside it. Each call is one statement (two when a key is known already)
    and ends within `TIMEOUT_SECONDS`; raises asyncpg's errors, OSError and TimeoutError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def reserve(self, reservations: Sequence[Reservation]) -> list[Verdict]:
        """Reserve the keys, all different, that are free, and say what holds for each. Committed when it returns.

        Of several replicas that reserve a key at once, one inserts it; a claim that ran out is likewise taken over by one.
        """
        rows = sorted(reservations, key=lambda r: r.key)  # one order for all replicas: no deadlock
        columns = (
            [r.key for r in rows],
            [r.body_hash for r in rows],
            [r.message_id for r in rows],
            [r.number for r in rows],
            [r.record.topic for r in rows],
            [r.record.key for r in rows],
            [r.record.value for r in rows],
        )
        async with asyncio.timeout(TIMEOUT_SECONDS), self._pool.acquire() as connection:
            claimed = {row[0] for row in await connection.fetch(_RESERVE, *columns)}
            known = [r.key for r in rows if r.message_id not in claimed]
            stored = {row["key"]: row for row in await connection.fetch(_STORED, known)} if known else {}
        return [
            Publish(r.message_id, r.number, r.record)
            if r.message_id in claimed
            else _verdict(r, stored.get(r.key), claimed)
            for r in reservations
        ]

    async def known(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that are reserved already. One that is about to be deleted is none: before it is reserved it might be gone."""
        async with asyncio.timeout(TIMEOUT_SECONDS), self._pool.acquire() as connection:
            return {row[0] for row in await connection.fetch(_KNOWN, keys, KEEP - timedelta(minutes=1))}

    async def forget(self, key: str) -> None:
        """Nothing is to be published under it: the key is free again."""
        await self._execute(_FORGET, key)

    async def mark(self, keys: Sequence[str]) -> None:
        """Their events are acknowledged: empty what is stored of them."""
        await self._execute(_MARK, keys)

    async def release(self, keys: Sequence[str]) -> None:
        """Publishing them was given up: the next repeat need not wait."""
        await self._execute(_RELEASE, keys)

    async def next_block(self) -> int:
        """The first number of a block that nobody else has."""
        async with asyncio.timeout(TIMEOUT_SECONDS), self._pool.acquire() as connection:
            return await connection.fetchval("SELECT nextval('message_numbers')")

    async def _execute(self, statement: str, *arguments: Any) -> None:
        async with asyncio.timeout(TIMEOUT_SECONDS), self._pool.acquire() as connection:
            await connection.execute(statement, *arguments)


def _verdict(reservation: Reservation, stored: Any, claimed: set[UUID]) -> Verdict:
    if stored is None:  # deleted between the two statements
        return InProgress(1)
    if stored["body_hash"] != reservation.body_hash:
        return OtherBody()
    if stored["event"] is None:
        return Published(stored["message_id"], stored["number"])
    if stored["message_id"] in claimed:
        record = Outgoing(stored["topic"], stored["record_key"], stored["event"])
        return Publish(stored["message_id"], stored["number"], record)
    return InProgress(math.ceil(max(1.0, min(CLAIM_SECONDS, CLAIM_SECONDS - stored["age"]))))
