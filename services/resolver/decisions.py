"""Decisions in Postgres, one per coordinates: the first one stored is the one that counts, whoever asks and whenever."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from libs.contracts.events import Encoding, Reason
from libs.contracts.statuses import Status
from libs.storage.database import Pool
from libs.storage.partitions import Partitioned
from services.resolver.deciding import Decision, Dispatch, Ended

PARTITIONED = (Partitioned("decisions", by_uuid=False),)


class Coordinates(NamedTuple):
    """Which leg of which message (architecture: Coordinates and order). `leg_at` finds the partition."""

    leg_at: datetime
    message_id: UUID
    cycle: int
    leg: int


_to_json = msgspec.json.Encoder().encode


async def settle(pool: Pool, made: Mapping[Coordinates, Decision]) -> Mapping[Coordinates, Decision]:
    """Store decisions, committed on return, and answer for each coordinates the decision that counts: the stored one."""
    # In key order, so that two instances with the same messages, in a rebalance, wait for each other and don't deadlock.
    rows = [_row(at, made[at]) for at in sorted(made)]
    done = await pool.execute(_STORE, _to_json(rows).decode())
    if done == f"INSERT 0 {len(rows)}":
        return made
    return await _stored(pool, made.keys())


async def _stored(pool: Pool, coordinates: Collection[Coordinates]) -> Mapping[Coordinates, Decision]:
    rows = await pool.fetch(_READ, *zip(*coordinates, strict=True))
    return {Coordinates(*row[:4]): _decision(*row[4:]) for row in rows}


def _row(at: Coordinates, decision: Decision) -> dict[str, object]:
    """The columns that aren't null."""
    row: dict[str, object] = {
        "leg_at": at.leg_at,
        "message_id": at.message_id,
        "cycle": at.cycle,
        "leg": at.leg,
        "decided_at": decision.decided_at,
    }
    if isinstance(decision, Dispatch):
        row["gateway"] = decision.gateway
        row["phone"] = decision.phone
        row["person_name"] = decision.person_name
        row["source_address"] = decision.source_address
        row["encoding"] = decision.encoding
        row["segments"] = decision.segments
    else:
        row["status"] = decision.status
        row["reason_code"] = decision.reason.code
        row["reason_words"] = decision.reason.words
    return row


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
    if status is not None:
        return Ended(decided_at, Status(status), Reason(reason_code, reason_words))
    return Dispatch(decided_at, gateway, phone, person_name, source_address, Encoding(encoding), segments)


_COLUMNS = (
    "leg_at, message_id, cycle, leg, decided_at, gateway, phone, person_name, source_address, encoding, segments,"
    " status, reason_code, reason_words"
)

# One JSON text costs the client a third of what fourteen arrays do; a COPY costs less in all only from some 500 rows up.
_STORE = f"""
    INSERT INTO decisions ({_COLUMNS})
    SELECT {_COLUMNS} FROM json_populate_recordset(NULL::decisions, $1::json)
    ON CONFLICT DO NOTHING
"""  # noqa: S608 - our own column names

_READ = f"""
    SELECT {_COLUMNS} FROM decisions WHERE (leg_at, message_id, cycle, leg) IN (
        SELECT * FROM unnest($1::timestamptz[], $2::uuid[], $3::integer[], $4::integer[]))
"""  # noqa: S608 - our own column names
