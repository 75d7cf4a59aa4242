"""The parts of messages in PostgreSQL: a batch is stored in one transaction, whatever it holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from libs.contracts.message_ids import first_id
from libs.storage.database import Pool
from libs.storage.partitions import Connection, Partitioned
from services.inbound.joining import JOIN_WITHIN, Arrival, JoinKey, Known, Placed, place

SCHEMA = "inbound"
MIGRATIONS = Path(__file__).parent / "migrations"
PARTITIONED = (Partitioned("parts", by_uuid=True),)

# One transaction at a time joins: two replicas may have a person's parts for a moment, while partitions change hands.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('inbound.joining'))"
_KNOWN = """
    SELECT k.ord, p.message_id, p.event_id, p.number, p.content
      FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::int[], $6::uuid[], $7::uuid[])
           WITH ORDINALITY AS k (gateway, reference, source, destination, total, low, high, ord)
     CROSS JOIN LATERAL (
           SELECT * FROM parts WHERE parts.total > 1 AND parts.gateway = k.gateway AND parts.reference = k.reference
              AND parts.source = k.source AND parts.destination = k.destination AND parts.message_id BETWEEN k.low AND k.high
           OFFSET 0) AS p
     WHERE p.total = k.total ORDER BY p.message_id, p.received_at, p.event_id"""
_INSERT = """
    INSERT INTO parts (message_id, event_id, opens, tenant, gateway, sender, source, destination, received_at, data_coding,
                       esm_class, content, sar_reference, sar_total, sar_part, reference, total, number)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bool[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                         $9::timestamptz[], $10::int[], $11::int[], $12::bytea[], $13::int[], $14::int[], $15::int[], $16::int[],
                         $17::int[], $18::int[])
    ON CONFLICT DO NOTHING"""


async def store(pool: Pool, arrivals: Sequence[Arrival]) -> None:
    """Store the parts that are not stored yet, each with its message."""
    async with pool.acquire() as connection, connection.transaction():
        joined = [arrival for arrival in arrivals if arrival.part.total > 1]
        known: list[tuple[JoinKey, Known]] = []
        if joined:
            await connection.execute(_LOCK)
            known = await _known(connection, joined)
        placed = place(arrivals, known)
        if placed:
            await connection.execute(_INSERT, *zip(*map(_row, placed), strict=True))


async def _known(connection: Connection, arrivals: Sequence[Arrival]) -> list[tuple[JoinKey, Known]]:
    """The stored parts of the messages that these may join."""
    times: dict[JoinKey, list[datetime]] = {}
    for arrival in arrivals:
        times.setdefault(arrival.key, []).append(arrival.data.observed_at)
    keys = list(times)
    rows = await connection.fetch(
        _KNOWN,
        *zip(*keys, strict=True),
        [first_id(min(t) - JOIN_WITHIN) for t in times.values()],
        [first_id(max(t) + JOIN_WITHIN + timedelta(milliseconds=1)) for t in times.values()],
    )
    return [(keys[row["ord"] - 1], Known(*row[1:])) for row in rows]


def _row(placed: Placed) -> tuple[object, ...]:
    arrival = placed.arrival
    data, part = arrival.data, arrival.part
    return (
        placed.message_id,
        arrival.event_id,
        placed.opens,
        arrival.tenant,
        data.gateway,
        arrival.sender,
        data.source,
        data.destination,
        data.observed_at,
        data.data_coding,
        data.esm_class,
        arrival.content,
        data.sar_reference,
        data.sar_total,
        data.sar_part,
        part.reference,
        part.total,
        part.number,
    )
