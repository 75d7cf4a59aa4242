"""The attempts in Postgres: claimed before the first byte, settled after the answer. Every call serves a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from libs.storage.database import Pool
from libs.storage.partitions import Partitioned
from services.dispatcher.attempts import Attempt, LegKey, LegState, Outcome, late_outcome

# A row is settled soon after its claim: room in its page keeps that from touching the index.
PARTITIONED = (Partitioned("attempts", by_uuid=False, fillfactor=50),)


@dataclass(frozen=True, slots=True)
class Ask:
    """One part that should leave now."""

    leg: LegState
    part: int
    try_number: int
    reference: int


@dataclass(slots=True)
class Claim:
    """A claim keeps its number until it is answered, however often it is sent. `sent_at` is the loop's clock before the first time."""

    number: int
    asks: Sequence[Ask]
    sent_at: float
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class ClaimVerdict:
    """What a claim says of one ask: `G` with the seconds from the claim's `sent_at` at which it may leave, `C`, `X` or `K`."""

    ask: Ask
    letter: str
    leave_seconds: float


@dataclass(frozen=True, slots=True)
class Settled:
    """An outcome to store."""

    leg: LegState
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class LateEvent:
    """An event that was stored with a late outcome and is not published yet."""

    id: int
    topic: str
    key: bytes
    value: bytes


class LeaseOver(Exception):
    """A peer has marked this instance dead, or its own clock says that the lease is over."""


class Ledger:
    """The attempts of one gateway, as one instance sees them. Methods raise asyncpg's errors while Postgres is away."""

    def __init__(self, pool: Pool, gateway: str, instance: UUID, interval_us: int) -> None:
        self._pool = pool
        self._gateway = gateway
        self._instance = instance
        self._interval_us = interval_us

    async def claim(self, claim: Claim, age_seconds: float) -> list[ClaimVerdict]:
        """Ask for the attempts of a claim; those without a verdict were not granted now. Raises LeaseOver."""
        asks = claim.asks
        events = [ask.leg.event for ask in asks]
        rows = await self._pool.fetch(
            "SELECT ord, verdict, leave_us FROM claim($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16)",
            self._instance,
            claim.number,
            claim.repeated,
            self._gateway,
            self._interval_us,
            int(age_seconds * 1_000_000),
            [e.data.leg.leg_at for e in events],
            [e.subject for e in events],
            [e.data.leg.cycle for e in events],
            [e.data.leg.leg for e in events],
            [ask.part for ask in asks],
            [ask.try_number for ask in asks],
            [ask.leg.parts == 1 and ask.try_number == 1 for ask in asks],
            [0 if ask.leg.parts == 1 and ask.try_number == 1 else len(ask.leg.attempts) for ask in asks],
            [e.data.message.valid_until for e in events],
            [ask.reference for ask in asks],
        )
        if rows and rows[0]["verdict"] == b"L":
            raise LeaseOver
        return [ClaimVerdict(asks[int(r["ord"]) - 1], r["verdict"].decode(), r["leave_us"] / 1_000_000) for r in rows]

    async def settle(self, settled: Sequence[Settled]) -> list[Settled]:
        """Store outcomes of this instance's attempts; gives back those whose row already had one (see `settle_late`)."""
        rows = await self._pool.fetch(
            """
            INSERT INTO attempts AS a (leg_at, message_id, cycle, leg, part, try, owner, claim, allowed_at,
                                       outcome, observed_at, provider_id, reason_code, reason_words)
            SELECT u.leg_at, u.message_id, u.cycle, u.leg, u.part, u.try, $1, 0, u.observed_at,
                   u.outcome::"char", u.observed_at, u.provider_id, u.reason_code, u.reason_words
              FROM unnest($2::settlement[]) AS u
             ORDER BY u.leg_at, u.message_id, u.cycle, u.leg, u.part, u.try
            ON CONFLICT (leg_at, message_id, cycle, leg, part, try) DO UPDATE
               SET outcome = EXCLUDED.outcome, observed_at = EXCLUDED.observed_at, provider_id = EXCLUDED.provider_id,
                   reason_code = EXCLUDED.reason_code, reason_words = EXCLUDED.reason_words
             WHERE a.outcome IS NULL AND a.owner = EXCLUDED.owner
            RETURNING a.message_id, a.cycle, a.leg, a.part, a.try
            """,
            self._instance,
            [_settlement(s) for s in settled],
        )
        if len(rows) == len(settled):
            return []
        stored = {tuple(r) for r in rows}
        return [s for s in settled if (*s.leg.key, s.attempt.part, s.attempt.try_number) not in stored]

    async def settle_late(
        self,
        settled: Settled,
        may_open_leg: bool,
        events_of: Callable[[Attempt], Iterable[tuple[str, bytes, bytes]]],
    ) -> tuple[Attempt, list[LateEvent]]:
        """Store an outcome whose row already has one, under the lock that claims take.

        A row in doubt takes the late outcome, and the events that follow from it are stored beside it. Any other row stands as it
        is: the answer was stored before, or says nothing new. Gives back the row as it now is, and the events to publish.
        """
        leg, answer = settled.leg, settled.attempt
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT FROM rates WHERE gateway = $1 FOR UPDATE", self._gateway)
            attempts = (await self._read(connection, [leg])).get(leg.key, [])
            row = next(a for a in attempts if a.part == answer.part and a.try_number == answer.try_number)
            in_doubt = row.outcome in (Outcome.DOUBT, Outcome.DOUBT_BY_PEER)
            if not in_doubt or answer.outcome is None or answer.outcome is Outcome.DOUBT:
                return row, []
            row.outcome = late_outcome(attempts, row, answer.outcome, may_open_leg)
            row.observed_at, row.provider_id = answer.observed_at, answer.provider_id
            row.reason_code, row.reason_words = answer.reason_code, answer.reason_words
            await connection.execute(
                """
                UPDATE attempts
                   SET outcome = $7::text::"char", observed_at = $8, provider_id = $9, reason_code = $10, reason_words = $11
                 WHERE leg_at = $1 AND message_id = $2 AND cycle = $3 AND leg = $4 AND part = $5 AND try = $6
                """,
                leg.event.data.leg.leg_at,
                *leg.key,
                row.part,
                row.try_number,
                str(row.outcome),
                row.observed_at,
                row.provider_id,
                row.reason_code,
                row.reason_words,
            )
            late = [
                LateEvent(
                    await connection.fetchval(
                        "INSERT INTO late_events (gateway, owner, topic, key, value) VALUES ($1, $2, $3, $4, $5) RETURNING id",
                        self._gateway,
                        self._instance,
                        *event,
                    ),
                    *event,
                )
                for event in events_of(row)
            ]
            return row, late

    async def read(self, legs: Sequence[LegState]) -> dict[LegKey, list[Attempt]]:
        """All attempts of these legs, and whether their owners are dead."""
        async with self._pool.acquire() as connection:
            return await self._read(connection, legs)

    async def declare_doubt(self, legs: Sequence[LegState]) -> None:
        """Call in doubt what dead instances left without an outcome in these legs. Their leases were marked dead before."""
        await self._pool.execute(
            """
            UPDATE attempts a SET outcome = 'P', observed_at = clock_timestamp()
              FROM unnest($1::timestamptz[], $2::uuid[], $3::smallint[], $4::smallint[]) AS u (leg_at, message_id, cycle, leg)
             WHERE a.leg_at = u.leg_at AND a.message_id = u.message_id AND a.cycle = u.cycle AND a.leg = u.leg
               AND a.outcome IS NULL
               AND NOT EXISTS (SELECT FROM instances i WHERE i.instance = a.owner AND NOT i.dead)
            """,
            *_coordinates(legs),
        )

    async def orphaned_events(self, limit: int) -> list[LateEvent]:
        """Late events whose owner is gone: whoever outlives it publishes them."""
        rows = await self._pool.fetch(
            """
            SELECT l.id, l.topic, l.key, l.value FROM late_events l
             WHERE l.gateway = $1 AND NOT EXISTS (SELECT FROM instances i WHERE i.instance = l.owner AND NOT i.dead)
             ORDER BY l.id LIMIT $2
            """,
            self._gateway,
            limit,
        )
        return [LateEvent(r["id"], r["topic"], r["key"], r["value"]) for r in rows]

    async def forget_events(self, events: Sequence[LateEvent]) -> None:
        """They are published."""
        await self._pool.execute("DELETE FROM late_events WHERE id = ANY($1)", [e.id for e in events])

    async def _read(
        self, connection: asyncpg.Connection | asyncpg.pool.PoolConnectionProxy, legs: Sequence[LegState]
    ) -> dict[LegKey, list[Attempt]]:
        rows = await connection.fetch(
            """
            SELECT a.message_id, a.cycle, a.leg, a.part, a.try, a.owner, a.outcome, a.observed_at, a.provider_id,
                   a.reason_code, a.reason_words, coalesce(i.dead, true) AS owner_dead
              FROM unnest($1::timestamptz[], $2::uuid[], $3::smallint[], $4::smallint[]) AS u (leg_at, message_id, cycle, leg)
              JOIN attempts a USING (leg_at, message_id, cycle, leg)
              LEFT JOIN instances i ON i.instance = a.owner
            """,
            *_coordinates(legs),
        )
        found: dict[LegKey, list[Attempt]] = {}
        for r in rows:
            outcome: bytes | None = r["outcome"]
            observed: datetime | None = r["observed_at"]
            found.setdefault(LegKey(r["message_id"], r["cycle"], r["leg"]), []).append(
                Attempt(
                    part=r["part"],
                    try_number=r["try"],
                    owner=r["owner"],
                    outcome=Outcome(outcome.decode()) if outcome is not None else None,
                    owner_dead=r["owner_dead"],
                    observed_at=observed,
                    provider_id=r["provider_id"],
                    reason_code=r["reason_code"],
                    reason_words=r["reason_words"],
                )
            )
        return found


def _settlement(settled: Settled) -> tuple[object, ...]:
    leg, attempt = settled.leg, settled.attempt
    return (
        leg.event.data.leg.leg_at,
        *leg.key,
        attempt.part,
        attempt.try_number,
        str(attempt.outcome),
        attempt.observed_at,
        attempt.provider_id,
        attempt.reason_code,
        attempt.reason_words,
    )


def _coordinates(legs: Sequence[LegState]) -> tuple[list[datetime], list[UUID], list[int], list[int]]:
    keys = [leg.key for leg in legs]
    return (
        [leg.event.data.leg.leg_at for leg in legs],
        [k.message_id for k in keys],
        [k.cycle for k in keys],
        [k.leg for k in keys],
    )
