"""Decisions in Postgres, one per coordinates: the first one stored is the one that counts, whoever asks and whenever."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from asyncpg import UniqueViolationError

from libs.contracts.events import Encoding, Reason
from libs.contracts.statuses import Status
from libs.storage.database import Pool
from libs.storage.partitions import Partitioned
from services.resolver.deciding import Decision, Deferred, Dispatch, Ended

PARTITIONED = (Partitioned("decisions", by_uuid=False),)


class Coordinates(NamedTuple):
    """Which leg of which message (docs/architecture.md: Coordinates and order). `leg_at` finds the partition."""

    leg_at: datetime
    message_id: UUID
    cycle: int
    leg: int


async def settle(pool: Pool, made: Mapping[Coordinates, Decision]) -> Mapping[Coordinates, Decision]:
    """Store decisions, committed on return, and answer, in the same order, the decision that counts for each: the stored one.

    Nearly always none is known yet, and a copy costs half of what an insert does that is ready for conflicts.
    """
    # In key order, so that two instances with the same messages, in a rebalance, wait for each other and don't deadlock.
    rows = [_row(at, decision) for at, decision in sorted(made.items(), key=itemgetter(0))]
    try:
        await pool.copy_records_to_table("decisions", records=rows, columns=_COLUMNS)
    except UniqueViolationError:
        await pool.execute(_STORE, rows)
        return await _stored(pool, made.keys())
    return made


async def _stored(pool: Pool, coordinates: Collection[Coordinates]) -> Mapping[Coordinates, Decision]:
    rows = await pool.fetch(_READ, *zip(*coordinates, strict=True))
    found = {Coordinates(*row[:4]): _decision(*row[4:]) for row in rows}
    return {at: found[at] for at in coordinates}


def _row(at: Coordinates, decision: Decision) -> tuple[object, ...]:
    """All columns, in their order."""
    if isinstance(decision, Dispatch):
        return (*at, *decision, None, None, None)
    if isinstance(decision, Deferred):
        return (*at, decision.decided_at, *_NO_DISPATCH, Status.SCHEDULED, "scheduled", "it waits for its time")
    reason = decision.reason
    return (*at, decision.decided_at, *_NO_DISPATCH, decision.status, reason.code, reason.words)


def _decision(
    decided_at: datetime,
    gateway: str,
    phone: str,
    person_name: str | None,
    source_address: str | None,
    encoding: str,
    segments: int,
    status: str | None,
    reason_code: str,
    reason_words: str,
) -> Decision:
    if status == Status.SCHEDULED:
        return Deferred(decided_at)
    if status is not None:
        return Ended(decided_at, Status(status), Reason(reason_code, reason_words))
    return Dispatch(decided_at, gateway, phone, person_name, source_address, Encoding(encoding), segments)


_NO_DISPATCH = (None,) * (len(Dispatch._fields) - 1)
"""What stands in the columns of a dispatch, but for `decided_at`, where there is none."""

_COLUMNS = (*Coordinates._fields, *Dispatch._fields, "status", "reason_code", "reason_words")
_COLUMN_LIST = ", ".join(_COLUMNS)

_STORE = f"""
    INSERT INTO decisions ({_COLUMN_LIST}) SELECT {_COLUMN_LIST} FROM unnest($1::decision[]) ON CONFLICT DO NOTHING
"""  # noqa: S608 - our own column names

# LATERAL with OFFSET 0: one index look-up per leg, also by a plan that was made while there were few.
_READ = f"""
    SELECT {_COLUMN_LIST} FROM unnest($1::timestamptz[], $2::uuid[], $3::integer[], $4::integer[]) AS k (at, id, c, l)
    CROSS JOIN LATERAL (
        SELECT * FROM decisions WHERE (leg_at, message_id, cycle, leg) = (k.at, k.id, k.c, k.l) OFFSET 0
    ) AS found
"""  # noqa: S608 - our own column names
