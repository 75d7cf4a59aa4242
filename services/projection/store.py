"""The outbox's tables: what a batch writes, statement by statement, and what it must know before. No statement per message.

Whoever writes anything of a message writes its row in `messages` first, on condition that the row still has the version that was read: who
is not the first learns it there, and has the row locked from then on. So what follows, journal and personal data, is new, and copied
straight into its table.
All writers take their locks in the order of keys, so that two replicas that apply the same messages for a moment wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import msgspec
from aiokafka.structs import TopicPartition
from msgspec.structs import astuple

from libs.storage.command_tags import rows_of_tag
from libs.storage.database import DsnError, Pool
from libs.storage.partitions import Connection, Partitioned
from services.projection.journal import ids_in
from services.projection.rows import MessageRow

Key = tuple[int, str]
"""Message id and tenant, the primary key of `messages`. The id as an integer, because a UUID is slow to hash and to compare."""

SCHEMA = "outbox"
MIGRATIONS = Path(__file__).parent / "migrations"
# In the order in which a batch writes them.
PARTITIONED = (
    # A row is written again within seconds of its insertion: with half of each page left free, that rarely touches an index.
    Partitioned("messages", by_uuid=True, fillfactor=50),
    Partitioned("events", by_uuid=True),
    Partitioned("personal", by_uuid=True),
)

_UPSERT_MESSAGES = """
INSERT INTO messages SELECT * FROM batch_messages
ON CONFLICT (tenant, message_id) DO UPDATE SET status = EXCLUDED.status, gateway = EXCLUDED.gateway,
    tags = EXCLUDED.tags, fold = EXCLUDED.fold, version = EXCLUDED.version, batch = EXCLUDED.batch
WHERE messages.version = EXCLUDED.version - 1
"""
# LATERAL with LIMIT: one index look-up per key, whatever the planner believes of a table that grows all the time.
_OF_KEYS = """
FROM unnest($1::text[], $2::uuid[]) AS k(tenant, message_id)
LEFT JOIN LATERAL (
    SELECT *, xmin FROM messages WHERE messages.tenant = k.tenant AND messages.message_id = k.message_id LIMIT 1
) AS m ON true
"""
_ENTRIES = "ARRAY(SELECT body FROM events WHERE events.message_id = k.message_id) AS entries"
_READ = f"SELECT k.tenant, k.message_id, m.fold, m.version, m.status, {_ENTRIES} {_OF_KEYS}"
_COLUMNS = ", ".join(f"m.{name}" for name in MessageRow.__struct_fields__)
_ROWS = f"SELECT {_COLUMNS} {_OF_KEYS} WHERE m.tenant IS NOT NULL"
_NOT_OURS = f"SELECT k.tenant, k.message_id {_OF_KEYS} WHERE m.xmin <> pg_current_xact_id()::xid"
_WRITE_POSITIONS = """
INSERT INTO offsets
SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[]) AS new(topic, partition, next_offset, reached)
WHERE NOT EXISTS (
    SELECT FROM offsets AS o
    WHERE o.topic = new.topic AND o.partition = new.partition
    AND o.next_offset >= new.next_offset AND o.reached >= new.reached
) ORDER BY topic, partition
ON CONFLICT (topic, partition) DO UPDATE SET
    next_offset = greatest(offsets.next_offset, EXCLUDED.next_offset), reached = greatest(offsets.reached, EXCLUDED.reached)
"""
_FORGET_POSITION = "DELETE FROM offsets WHERE topic = $1 AND partition = $2"
_READ_POSITIONS = "SELECT topic, partition, next_offset, reached FROM offsets"


class Stored(msgspec.Struct, frozen=True, gc=False):
    """What there is of a message: its row's fold, version and status, and which events the journal has."""

    fold: bytes
    """Empty if it has no row."""
    version: int
    status: str
    event_ids: tuple[bytes, ...]
    requested: bool = True
    """False if its request is not folded in yet, as far as we know."""


class Position(NamedTuple):
    """How far a partition is applied."""

    next_offset: int
    """Everything before it is."""
    reached: int
    """Nothing from it on is; of what lies between the two, some."""


async def copy(connection: Connection, table: str, rows: Iterable[tuple[object, ...]]) -> None:
    """Add rows that the table lacks. Raises UniqueViolationError if it has one, DeadlockDetectedError if a replica adds the same."""
    await connection.copy_records_to_table(table, records=rows)


async def merge(connection: Connection, table: str, rows: Iterable[tuple[object, ...]]) -> None:
    """Add those of the rows that the table lacks; what was stored first stays."""
    await _copy_beside(connection, table, rows)
    await connection.execute(f"INSERT INTO {table} SELECT * FROM batch_{table} ON CONFLICT DO NOTHING")  # noqa: S608 - our own words


async def _copy_beside(connection: Connection, table: str, rows: Iterable[tuple[object, ...]]) -> None:
    """Put rows into `batch_<table>`, which the commit empties, to be merged: arrays in a parameter would cost the client three times as
    much."""
    await connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS batch_{table} (LIKE {table}) ON COMMIT DELETE ROWS")
    await copy(connection, f"batch_{table}", rows)


async def insert_messages(connection: Connection, rows: Iterable[MessageRow]) -> None:
    """Add the rows of messages that have none; raises as `copy` does."""
    await copy(connection, "messages", map(astuple, rows))


async def write_messages(connection: Connection, rows: Sequence[MessageRow]) -> int:
    """Insert the rows of version 1; update the others where the row has the version just before. The number of rows written.

    To be called once in a transaction. Every row is locked until its end, also those that another replica was quicker to write.
    """
    await _copy_beside(connection, "messages", map(astuple, rows))
    done = await connection.execute(_UPSERT_MESSAGES)
    return rows_of_tag(done)


async def write_messages_again(connection: Connection, rows: Sequence[MessageRow]) -> None:
    """The same, after `write_messages` in the same transaction."""
    await connection.execute("TRUNCATE batch_messages")  # it is emptied at the commit
    await write_messages(connection, rows)


async def require_rights(pool: Pool) -> None:
    """Raises DsnError where the role may not do what every batch does."""
    if not await pool.fetchval("SELECT has_database_privilege(current_database(), 'TEMPORARY')"):
        raise DsnError("the role lacks a right on the database: TEMPORARY")


async def not_ours(connection: Connection, keys: Iterable[Key]) -> list[Key]:
    """Those of these messages whose row was not written by the transaction that asks."""
    rows = await connection.fetch(_NOT_OURS, *_columns(keys))
    return [(row["message_id"].int, row["tenant"]) for row in rows]


async def read_stored(connection: Connection, keys: Iterable[Key]) -> dict[Key, Stored]:
    """What there is of those messages of which there is anything."""
    rows = await connection.fetch(_READ, *_columns(keys))
    return {
        (row["message_id"].int, row["tenant"]): Stored(
            row["fold"] or b"",
            row["version"] or 0,
            row["status"] or "",
            tuple(id_ for body in row["entries"] for id_ in ids_in(body)),
        )
        for row in rows
        if row["fold"] is not None or row["entries"]
    }


async def read_rows(connection: Connection, keys: Iterable[Key]) -> dict[Key, MessageRow]:
    """The rows of those messages that have one, as they are stored."""
    rows = [MessageRow(*row) for row in await connection.fetch(_ROWS, *_columns(keys))]
    return {(row.message_id.int, row.tenant): row for row in rows}


def _columns(keys: Iterable[Key]) -> tuple[list[str], list[UUID]]:
    message_ids, tenants = zip(*keys, strict=True)
    return list(tenants), [UUID(int=message_id) for message_id in message_ids]


async def write_positions(connection: Connection, positions: Mapping[TopicPartition, Position]) -> None:
    """Store how far partitions are applied; what is behind what is stored changes nothing."""
    ordered = list(positions.items())
    await connection.execute(
        _WRITE_POSITIONS,
        [partition.topic for partition, _ in ordered],
        [partition.partition for partition, _ in ordered],
        [position.next_offset for _, position in ordered],
        [position.reached for _, position in ordered],
    )


async def read_positions(connection: Connection) -> dict[TopicPartition, Position]:
    """How far each partition is applied, by any replica."""
    rows = await connection.fetch(_READ_POSITIONS)
    return {
        TopicPartition(row["topic"], row["partition"]): Position(row["next_offset"], row["reached"]) for row in rows
    }


async def forget_position(connection: Connection, partition: TopicPartition) -> None:
    """Apply this partition from its beginning."""
    await connection.execute(_FORGET_POSITION, partition.topic, partition.partition)
