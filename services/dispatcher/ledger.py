"""The attempts in Postgres: claimed before the first byte, settled after the answer. Every call serves a batch."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from libs.bus.port import Outgoing
from libs.contracts.events import Reason
from libs.storage.array_literals import array_literal
from libs.storage.command_tags import rows_of_tag
from libs.storage.database import Pool
from libs.storage.partitions import Connection, Partitioned
from services.dispatcher.attempts import Attempt, LegKey, LegState, Outcome, deferral, join_reference, late_outcome
from services.dispatcher.lease import LeaseOver

# A row grows when it is settled, soon after its claim. With room for that in its page, the index need not be touched.
PARTITIONED = (Partitioned("attempts", by_uuid=False, fillfactor=40),)

_READ = """
SELECT a.message_id, a.cycle, a.leg, a.part, a.try, a.owner, a.outcome, a.observed_at, a.provider_id,
       a.reason_code, a.reason_words, a.leg_opened_at, coalesce(i.dead, true) AS owner_dead
  FROM unnest($1::text::timestamptz[], $2::text::uuid[], $3::text::smallint[], $4::text::smallint[])
       AS u (leg_at, message_id, cycle, leg)
  JOIN attempts a USING (leg_at, message_id, cycle, leg)
  LEFT JOIN instances i ON i.instance = a.owner
"""
_DECLARE_DOUBT = """
UPDATE attempts a SET outcome = 'P', observed_at = clock_timestamp()
  FROM unnest($1::text::timestamptz[], $2::text::uuid[], $3::text::smallint[], $4::text::smallint[])
       AS u (leg_at, message_id, cycle, leg)
 WHERE a.leg_at = u.leg_at AND a.message_id = u.message_id AND a.cycle = u.cycle AND a.leg = u.leg
   AND a.outcome IS NULL
   AND NOT EXISTS (SELECT FROM instances i WHERE i.instance = a.owner AND NOT i.dead)
"""

_REJECT = """
INSERT INTO attempts (leg_at, message_id, cycle, leg, part, try, owner, claim, allowed_at, outcome, observed_at, reason_code, reason_words)
SELECT $1, $2, $3, $4, 1, 1, $5, 0, clock_timestamp(), 'F', clock_timestamp(), $6, $7
 WHERE NOT EXISTS (SELECT FROM attempts WHERE leg_at = $1 AND message_id = $2 AND cycle = $3 AND leg = $4)
"""
_REJECTED = """
SELECT min(observed_at) FROM attempts WHERE leg_at = $1 AND message_id = $2 AND cycle = $3 AND leg = $4
HAVING bool_and(reason_code = $5)
"""


class Ask(msgspec.Struct, gc=False):
    """One part that should leave now."""

    leg: LegState
    part: int
    try_number: int


@dataclass(slots=True)
class Claim:
    """A claim keeps its number until it is answered, however often it is sent. `sent_at` is the loop's clock before the first time.

    If the gateway has a rate, the first part may leave `lead_seconds` (1 at most) after Postgres has the claim.
    """

    number: int
    asks: Sequence[Ask]
    sent_at: float
    lead_seconds: float
    repeated: bool = False


class ClaimVerdict(msgspec.Struct, gc=False):
    """What a claim says of one ask: `G`, granted, to leave so many seconds after the claim's `sent_at`; `C`, `R` or `X`, ended with that
    outcome; or `K`, the leg holds attempts that the asker does not know."""

    ask: Ask
    letter: str
    leave_seconds: float


class Settled(msgspec.Struct, gc=False):
    """An outcome to store."""

    leg: LegState
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class LateEvent:
    """An event that was stored with a late outcome and is not published yet."""

    id: int
    event: Outgoing


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
        legs = [ask.leg for ask in asks]
        firsts = [leg.parts == 1 and ask.try_number == 1 for leg, ask in zip(legs, asks, strict=True)]
        # What the claim has to look up and to count. Of first tries of single parts there is nothing: without these it takes a shorter way.
        weighed = (
            [None] * 5
            if all(firsts)
            else [
                array_literal([ask.part for ask in asks]),
                array_literal([ask.try_number for ask in asks]),
                array_literal(firsts),
                array_literal([0 if first else len(leg.attempts) for leg, first in zip(legs, firsts, strict=True)]),
                array_literal([join_reference(leg) for leg in legs]),
            ]
        )
        rows = await self._pool.fetch(
            """
            SELECT ord, verdict, leave_us
              FROM claim($1, $2, $3, $4, $5, $6, $7, $8::text::timestamptz[], $9::text::uuid[], $10::text::smallint[],
                         $11::text::smallint[], $12::text::timestamptz[], $13::text::timestamptz[], $14::text::smallint[],
                         $15::text::smallint[], $16::text::boolean[], $17::text::smallint[], $18::text::int[])
            """,
            self._instance,
            claim.number,
            claim.repeated,
            self._gateway,
            self._interval_us,
            int(age_seconds * 1_000_000),
            int(claim.lead_seconds * 1_000_000),
            *_coordinates(legs),
            array_literal([leg.event.data.message.valid_until for leg in legs]),
            array_literal([leg.event.data.decided_at for leg in legs]),
            *weighed,
        )
        if rows and rows[0]["ord"] == 0:
            if rows[0]["verdict"] == b"L":
                raise LeaseOver
            leave_seconds = rows[0]["leave_us"] / 1_000_000
            return [ClaimVerdict(ask, "G", leave_seconds) for ask in asks]
        return [ClaimVerdict(asks[int(r["ord"]) - 1], r["verdict"].decode(), r["leave_us"] / 1_000_000) for r in rows]

    async def settle(self, settled: Sequence[Settled]) -> list[Settled]:
        """Store outcomes of this instance's attempts; gives back those whose row already had one (see `settle_late`)."""
        attempts = [s.attempt for s in settled]
        rows = await self._pool.fetch(
            """
            WITH stored AS (
                INSERT INTO attempts AS a (leg_at, message_id, cycle, leg, part, try, owner, claim, allowed_at,
                                           outcome, observed_at, provider_id, reason_code, reason_words)
                SELECT u.leg_at, u.message_id, u.cycle, u.leg, u.part, u.try, $1, 0, u.observed_at,
                       u.outcome, u.observed_at, u.provider_id, u.reason_code, u.reason_words
                  FROM unnest($2::text::timestamptz[], $3::text::uuid[], $4::text::smallint[], $5::text::smallint[],
                              $6::text::smallint[], $7::text::smallint[], $8::text::"char"[], $9::text::timestamptz[],
                              $10::text::text[], $11::text::text[], $12::text::text[])
                       AS u (leg_at, message_id, cycle, leg, part, try, outcome, observed_at, provider_id, reason_code, reason_words)
                 ORDER BY u.leg_at, u.message_id, u.cycle, u.leg, u.part, u.try
                ON CONFLICT (leg_at, message_id, cycle, leg, part, try) DO UPDATE
                   SET outcome = EXCLUDED.outcome, observed_at = EXCLUDED.observed_at, provider_id = EXCLUDED.provider_id,
                       reason_code = EXCLUDED.reason_code, reason_words = EXCLUDED.reason_words
                 WHERE a.outcome IS NULL AND a.owner = EXCLUDED.owner
                RETURNING a.message_id, a.cycle, a.leg, a.part, a.try
            ), total AS (SELECT count(*) AS stored FROM stored)
            -- One row if all were stored; else one for each that was.
            SELECT t.stored, s.* FROM total t LEFT JOIN stored s ON t.stored <> $13
            """,
            self._instance,
            *_coordinates([s.leg for s in settled]),
            array_literal([a.part for a in attempts]),
            array_literal([a.try_number for a in attempts]),
            array_literal([a.outcome for a in attempts]),
            array_literal([a.observed_at for a in attempts]),
            array_literal([a.provider_id for a in attempts]),
            array_literal([a.reason_code for a in attempts]),
            array_literal([a.reason_words for a in attempts]),
            len(settled),
        )
        if rows[0]["stored"] == len(settled):
            return []
        stored = {tuple(r)[1:] for r in rows}
        return [s for s in settled if (*s.leg.key, s.attempt.part, s.attempt.try_number) not in stored]

    async def settle_late(
        self,
        settled: Settled,
        may_open_leg: bool,
        doubt_opens_leg: bool,
        events_of: Callable[[Attempt], Iterable[Outgoing]],
    ) -> tuple[Attempt, list[LateEvent]]:
        """Store an outcome whose row already has one, under the lock that claims take.

        A row in doubt takes the late outcome, and the events that follow from it are stored beside it. Any other row stands as it
        is: the answer was stored before, or says nothing new. Gives back the row as it now is, and the events to publish.

        Where the doubt has opened the next leg (`doubt_opens_leg`), a late refusal keeps when: the peer that declared the doubt may find
        the refusal in its place, and still has to tell of that leg.
        """
        leg, answer = settled.leg, settled.attempt
        async with self._locked() as connection:
            attempts = (await self._read(connection, [leg])).get(leg.key, [])
            row = next(a for a in attempts if a.part == answer.part and a.try_number == answer.try_number)
            in_doubt = row.outcome in (Outcome.DOUBT, Outcome.DOUBT_BY_PEER)
            if not in_doubt or answer.outcome is None or answer.outcome is Outcome.DOUBT:
                return row, []
            row.outcome = late_outcome(attempts, row, answer.outcome, may_open_leg)
            if doubt_opens_leg and row.outcome is Outcome.LATE_FAILED:
                row.leg_opened_at = row.observed_at
            row.observed_at, row.provider_id = answer.observed_at, answer.provider_id
            row.reason_code, row.reason_words = answer.reason_code, answer.reason_words
            await self._write_late(connection, leg, row)
            return row, [await self._keep(connection, event) for event in events_of(row)]

    async def defer(self, leg: LegState, tries: int) -> Attempt | None:
        """Store what defers a message of several parts, if `deferral` says so of what is stored, under the lock that claims take."""
        async with self._locked() as connection:
            row = deferral(leg, (await self._read(connection, [leg])).get(leg.key, []), tries)
            if row is not None:
                await connection.execute(
                    """
                    INSERT INTO attempts (leg_at, message_id, cycle, leg, part, try, owner, claim, allowed_at,
                                          outcome, observed_at, reason_code, reason_words)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $9, $8::text::"char", $9, $10, $11)
                    """,
                    leg.event.data.leg.leg_at,
                    *leg.key,
                    row.part,
                    row.try_number,
                    row.owner,
                    str(row.outcome),
                    row.observed_at,
                    row.reason_code,
                    row.reason_words,
                )
            return row

    async def reject(self, leg_at: datetime, leg: LegKey, reason: Reason) -> datetime | None:
        """End a leg that can't be sent, in place of its first try, under the lock that claims take. Answers when that was, which is
        earlier if it is said again; None if anything else is stored of the leg."""
        async with self._locked() as connection:
            await connection.execute(_REJECT, leg_at, *leg, self._instance, reason.code, reason.words)
            return await connection.fetchval(_REJECTED, leg_at, *leg, reason.code)

    async def read(self, legs: Sequence[LegState]) -> dict[LegKey, list[Attempt]]:
        """All attempts of these legs, and whether their owners are dead."""
        async with self._pool.acquire() as connection:
            return await self._read(connection, legs)

    async def declare_doubt(self, legs: Sequence[LegState]) -> int:
        """Call in doubt what dead instances left without an outcome in these legs, and say how many attempts that is (segments).

        Their leases were marked dead before.
        """
        return rows_of_tag(await self._pool.execute(_DECLARE_DOUBT, *_coordinates(legs)))

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
        return [LateEvent(r["id"], Outgoing(r["topic"], r["key"], r["value"])) for r in rows]

    async def forget_events(self, events: Sequence[LateEvent]) -> None:
        """Delete late events that are published."""
        await self._pool.execute("DELETE FROM late_events WHERE id = ANY($1)", [e.id for e in events])

    @asynccontextmanager
    async def _locked(self) -> AsyncGenerator[Connection]:
        """A transaction under the lock that claims take: until it ends, nothing is claimed of this gateway."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT FROM rates WHERE gateway = $1 FOR UPDATE", self._gateway)
            yield connection

    async def _write_late(self, connection: Connection, leg: LegState, row: Attempt) -> None:
        await connection.execute(
            """
            UPDATE attempts
               SET outcome = $7::text::"char", observed_at = $8, provider_id = $9, reason_code = $10, reason_words = $11,
                   leg_opened_at = $12
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
            row.leg_opened_at,
        )

    async def _keep(self, connection: Connection, event: Outgoing) -> LateEvent:
        """Store an event until it is published."""
        return LateEvent(
            await connection.fetchval(
                "INSERT INTO late_events (gateway, owner, topic, key, value) VALUES ($1, $2, $3, $4, $5) RETURNING id",
                self._gateway,
                self._instance,
                event.topic,
                event.key,
                event.value,
            ),
            event,
        )

    async def _read(self, connection: Connection, legs: Sequence[LegState]) -> dict[LegKey, list[Attempt]]:
        rows = await connection.fetch(_READ, *_coordinates(legs))
        found: dict[LegKey, list[Attempt]] = {}
        for r in rows:
            attempt = Attempt(
                part=r["part"],
                try_number=r["try"],
                owner=r["owner"],
                outcome=Outcome(r["outcome"].decode()) if r["outcome"] is not None else None,
                owner_dead=r["owner_dead"],
                observed_at=r["observed_at"],
                provider_id=r["provider_id"],
                reason_code=r["reason_code"],
                reason_words=r["reason_words"],
                leg_opened_at=r["leg_opened_at"],
            )
            found.setdefault(LegKey(r["message_id"], r["cycle"], r["leg"]), []).append(attempt)
        return found


def _coordinates(legs: Sequence[LegState]) -> tuple[str, str, str, str]:
    """Time, message, cycle and number of these legs, each column as an array literal."""
    keys = [leg.key for leg in legs]
    return (
        array_literal([leg.event.data.leg.leg_at for leg in legs]),
        array_literal([key.message_id for key in keys]),
        array_literal([key.cycle for key in keys]),
        array_literal([key.leg for key in keys]),
    )
