"""What waits, in Postgres. Every call serves a whole batch, is committed on return, and walks an index."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from libs.contracts.message_ids import first_id
from libs.storage.database import Pool
from libs.storage.retention import BATCH_ROWS, PAUSE_SECONDS, delete_old

PARAMETERS = {f"enable_{way}": "off" for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "incremental_sort")}
"""For all connections: the table grows from nothing to millions between two looks of the planner, and every statement has its index."""


class LegKey(NamedTuple):
    """The leg that a deferral opens."""

    message_id: UUID
    cycle: int
    leg: int


class Deferral(NamedTuple):
    """A leg that begins when it is due, and whose message it is: the attributes of the type `arrival`. `kind` is a `PersonKind`."""

    message_id: UUID
    cycle: int
    leg: int
    due_at: datetime
    tenant: str
    kind: str
    person: str
    traceparent: str | None

    @property
    def key(self) -> LegKey:
        return LegKey(self.message_id, self.cycle, self.leg)


class Arrival(NamedTuple):
    """A deferral as it is kept: with its priority and `event`, which is published when it is due; None if that was deleted by hand."""

    deferral: Deferral
    priority: str
    event: bytes | None


class Outcome(StrEnum):
    RETURNED = "returned"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


class Mark(NamedTuple):
    """A cancellation of one cycle of a message."""

    message_id: UUID
    cycle: int


async def add(pool: Pool, arrivals: Sequence[Arrival]) -> None:
    """Add what is not there yet. What is there gets no event again: it came with one, and may be settled at this moment."""
    ordered = sorted(((a.deferral.key, a) for a in arrivals), key=itemgetter(0))
    async with pool.acquire() as connection, connection.transaction():
        rows = await connection.fetch(_ADD, [a.deferral for _, a in ordered], [a.priority for _, a in ordered])
        added = {LegKey(*row) for row in rows}
        if events := [(*key, a.event) for key, a in ordered if key in added]:
            await connection.execute(_ADD_EVENTS, *zip(*events, strict=True))


async def mark(pool: Pool, marks: Iterable[Mark], now: datetime) -> None:
    """Remember cancellations."""
    await pool.execute(_MARK, *zip(*sorted(marks), strict=True), now)


async def cancel_marked(pool: Pool, messages: Iterable[UUID], now: datetime) -> list[tuple[Deferral, datetime]]:
    """Cancel what of these messages waits and is marked, and answer all that is cancelled of them, now or before, and when.

    What is leaving already is let go. Call it when both the arrivals and the marks of a batch are committed: then whichever of two
    batches comes last, the one with the arrival or the other with the mark, sees both, in whatever lane or replica each is handled.
    """
    marks = [Mark(*row) for row in await pool.fetch(_MARKED, list(messages))]
    if not marks:
        return []
    await pool.execute(_CANCEL, *zip(*sorted(marks), strict=True), now)
    rows = await pool.fetch(_CANCELLED, list({m.message_id for m in marks}), Outcome.CANCELLED)
    return [(Deferral._make(attributes), settled_at) for *attributes, settled_at in rows]


async def reject(pool: Pool, deferral: Deferral, now: datetime) -> datetime | None:
    """End at once what can't be kept. Answers when that was stored; None if it is there already and was not rejected."""
    settled_at: datetime | None = await pool.fetchval(_REJECT, [deferral], now)
    return settled_at


async def claim(pool: Pool, limit: int, now: datetime, lease: timedelta, *, high_only: bool = False) -> list[Arrival]:
    """Take what is due, in the order in which it is: as leaving, for the length of the lease. What a replica took whose lease is
    over is taken again. `high_only`: of high priority alone."""
    rows = await pool.fetch(_CLAIM_HIGH if high_only else _CLAIM, now, limit, now + lease)
    rows.sort(key=_AS_DUE)
    return [Arrival(Deferral._make(attributes), priority, event) for *attributes, priority, event in rows]


async def settle(pool: Pool, keys: Iterable[LegKey], now: datetime, outcome: Outcome = Outcome.RETURNED) -> None:
    """These were published."""
    await pool.execute(_SETTLE, *zip(*sorted(keys), strict=True), now, outcome)


async def next_due(pool: Pool) -> datetime | None:
    """When the first that waits is due."""
    first: datetime | None = await pool.fetchval(_NEXT)
    return first


async def forget(pool: Pool, before: datetime) -> None:
    """Delete what was settled, and marks that were made, before a moment."""
    last = LegKey(UUID(int=0), 0, 0)
    # What was accepted later can't have been settled before; and it goes on coming, so that to walk it would have no end.
    end = first_id(before)
    while (row := await pool.fetchrow(_FORGET, *last, BATCH_ROWS, before, end)) is not None:
        last = LegKey(*row)
        await asyncio.sleep(PAUSE_SECONDS)
    await delete_old(pool, "marks", "marked_at", before)


_AS_DUE = itemgetter("due_at", "message_id", "cycle", "leg")

# Statements that look rows up by key ask for `outcome IS NULL`. `settled_at IS NULL` says the same, but it is what `entries_due` is made
# for: while the planner believes that the table is small, it would walk all of that index for every key.
_ATTRIBUTES = "message_id, cycle, leg, due_at, tenant, kind, person, traceparent"
_ARRIVAL = f"{_ATTRIBUTES}, priority"

_ADD = f"""
    INSERT INTO entries ({_ARRIVAL}) SELECT {_ARRIVAL} FROM unnest($1::arrival[], $2::text[]) AS a ({_ARRIVAL})
    ON CONFLICT DO NOTHING RETURNING message_id, cycle, leg
"""  # noqa: S608 - our own column names

_ADD_EVENTS = """
    INSERT INTO events SELECT * FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::bytea[]) ON CONFLICT DO NOTHING
"""

# OFFSET 0: one look by key for each. Left alone the planner would walk all of a table that it once saw empty.
_EVENT_OF_K = """LATERAL (
    SELECT e.ctid, e.event FROM events e WHERE (e.message_id, e.cycle, e.leg) = (k.message_id, k.cycle, k.leg) OFFSET 0) AS v"""

_MARK = """
    INSERT INTO marks SELECT message_id, cycle, $3 FROM unnest($1::uuid[], $2::integer[]) AS m (message_id, cycle)
    ON CONFLICT DO NOTHING
"""

_MARKED = "SELECT message_id, cycle FROM marks WHERE message_id = ANY($1)"

# Locked in key order, so that replicas with the same messages wait for each other and don't deadlock. The condition is looked at again
# under the lock.
_CANCEL = f"""
    WITH waiting AS MATERIALIZED (
        SELECT found.* FROM unnest($1::uuid[], $2::integer[]) AS m (message_id, cycle)
        CROSS JOIN LATERAL (
            SELECT e.message_id, e.cycle, e.leg FROM entries e
            WHERE (e.message_id, e.cycle) = (m.message_id, m.cycle) AND e.outcome IS NULL AND e.leaving_until IS NULL
            ORDER BY e.leg FOR UPDATE) AS found),
    emptied AS (DELETE FROM events WHERE ctid = ANY (ARRAY(SELECT v.ctid FROM waiting AS k CROSS JOIN {_EVENT_OF_K})))
    UPDATE entries e SET settled_at = $3, outcome = 'cancelled' FROM waiting w
    WHERE (e.message_id, e.cycle, e.leg) = (w.message_id, w.cycle, w.leg)
"""  # noqa: S608 - the same

_CANCELLED = f"SELECT {_ATTRIBUTES}, settled_at FROM entries WHERE message_id = ANY($1) AND outcome = $2"  # noqa: S608 - the same

_REJECT = f"""
    INSERT INTO entries AS e ({_ATTRIBUTES}, settled_at, outcome)
    SELECT {_ATTRIBUTES}, $2, 'rejected' FROM unnest($1::arrival[])
    ON CONFLICT (message_id, cycle, leg) DO UPDATE SET outcome = e.outcome WHERE e.outcome = 'rejected'
    RETURNING e.settled_at
"""  # noqa: S608 - the same

_CLAIM, _CLAIM_HIGH = (
    f"""
    WITH due AS MATERIALIZED (
        SELECT ctid AS place FROM entries
        -- The priority is no parameter: only with the word itself is the planner sure that the index of high priority will do.
        WHERE settled_at IS NULL {of_priority} AND due_at <= $1 AND (leaving_until IS NULL OR leaving_until <= $1)
        -- Replicas pass over what others have locked: they take turns and never wait.
        ORDER BY due_at, message_id, cycle, leg LIMIT $2 FOR UPDATE SKIP LOCKED),
    k AS (
        -- By its place in the table: where the planner saw the table empty once, a join would be a nested loop over all entries. What
        -- another has changed meanwhile has left its place. It is claimed the next time; to settle by place would leave it unsettled.
        UPDATE entries SET leaving_until = $3 WHERE ctid = ANY (ARRAY(SELECT place FROM due)) RETURNING entries.*)
    SELECT {_ARRIVAL}, v.event FROM k LEFT JOIN {_EVENT_OF_K} ON true
"""  # noqa: S608 - the same
    for of_priority in ("", "AND priority = 'high'")
)

_SETTLE = f"""
    WITH gone AS MATERIALIZED (
        SELECT found.* FROM unnest($1::uuid[], $2::integer[], $3::integer[]) AS g (message_id, cycle, leg)
        CROSS JOIN LATERAL (
            SELECT e.message_id, e.cycle, e.leg FROM entries e
            WHERE (e.message_id, e.cycle, e.leg) = (g.message_id, g.cycle, g.leg) AND e.outcome IS NULL
            FOR UPDATE) AS found),
    emptied AS (DELETE FROM events WHERE ctid = ANY (ARRAY(SELECT v.ctid FROM gone AS k CROSS JOIN {_EVENT_OF_K})))
    UPDATE entries e SET settled_at = $4, outcome = $5 FROM gone g
    WHERE (e.message_id, e.cycle, e.leg) = (g.message_id, g.cycle, g.leg)
"""  # noqa: S608 - the same

_NEXT = """
    SELECT due_at FROM entries WHERE settled_at IS NULL AND leaving_until IS NULL
    ORDER BY due_at, message_id, cycle, leg LIMIT 1
"""

# One batch, and the last that it came to: by the key of messages, which is their age. What waits still is passed over and stays.
_FORGET = """
    WITH walked AS MATERIALIZED (
        SELECT ctid AS place, message_id, cycle, leg, settled_at FROM entries
        WHERE (message_id, cycle, leg) > ($1, $2, $3) AND message_id < $6 ORDER BY message_id, cycle, leg LIMIT $4),
    deleted AS (
        DELETE FROM entries WHERE ctid = ANY (ARRAY(SELECT place FROM walked WHERE settled_at < $5)))
    SELECT message_id, cycle, leg FROM walked ORDER BY message_id DESC, cycle DESC, leg DESC LIMIT 1
"""
