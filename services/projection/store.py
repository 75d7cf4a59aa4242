"""The outbox's tables: what a batch writes, statement by statement, and what it must know before. No statement per message.

New rows are copied straight into their tables; one that is there already is an error, and the transaction is done again by `merging`.
All writers take their locks in the order journal, personal, messages, offsets, each by key: two replicas that apply the same messages
for a moment wait for each other and never deadlock. So the rows that are given here must be in the order of their keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import asyncpg
import msgspec
from aiokafka.structs import TopicPartition

from libs.storage.command_tags import rows_of_tag
from libs.storage.partitions import Partitioned
from services.projection.journal import NewLine
from services.projection.rows import MessageRow, NewPersonalRow

Connection = asyncpg.pool.PoolConnectionProxy | asyncpg.Connection


Key = tuple[int, str]
"""Message id and tenant, the primary key of `messages`. The id as an integer, because a UUID is slow to hash and to compare."""

SCHEMA = "outbox"
MIGRATIONS = Path(__file__).parent / "migrations"
PARTITIONED = (
    Partitioned("events", by_uuid=True),
    # A row is written again within seconds of its insertion: with half of each page left free, that rarely touches an index.
    Partitioned("messages", by_uuid=True, fillfactor=50),
    Partitioned("personal", by_uuid=True),
)

# Copied beside, then merged: as arrays in a parameter the rows would cost the client three times as much.
_ROWS_BESIDE = "CREATE TEMP TABLE IF NOT EXISTS batch_messages (LIKE messages) ON COMMIT DELETE ROWS"
_UPSERT_MESSAGES = """
INSERT INTO messages SELECT * FROM batch_messages
ON CONFLICT (tenant, message_id) DO UPDATE SET status = EXCLUDED.status, gateway = EXCLUDED.gateway,
    tags = EXCLUDED.tags, fold = EXCLUDED.fold, version = EXCLUDED.version, batch = EXCLUDED.batch
WHERE messages.version = EXCLUDED.version - 1
"""
# LATERAL with LIMIT: one index look-up per key, whatever the planner believes of a table that grows all the time.
_READ_FOLDS = """
SELECT m.tenant, m.message_id, m.fold, m.version, m.status FROM unnest($1::text[], $2::uuid[]) AS k(tenant, message_id)
CROSS JOIN LATERAL (
    SELECT * FROM messages WHERE messages.tenant = k.tenant AND messages.message_id = k.message_id LIMIT 1
) AS m
"""
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


class StoredFold(msgspec.Struct, frozen=True, gc=False):
    """A message's fold as its row has it, the version of the row, and the status it shows."""

    fold: bytes
    version: int
    status: str


class Position(NamedTuple):
    """How far a partition is applied."""

    next_offset: int
    """Everything before it is."""
    reached: int
    """Nothing from it on is; of what lies between the two, some."""


async def write_journal(connection: Connection, lines: Sequence[NewLine]) -> None:
    """Add lines that the journal does not have. Raises UniqueViolationError if it has one."""
    await connection.copy_records_to_table("events", records=lines)


async def write_personal(connection: Connection, rows: Sequence[NewPersonalRow]) -> None:
    """Add what is not known yet. Raises UniqueViolationError if something is."""
    await connection.copy_records_to_table("personal", records=rows)


async def write_messages(connection: Connection, rows: Sequence[MessageRow]) -> int:
    """Insert the rows of version 1; update the others where the row has the version just before. The number of rows written.

    To be called in a transaction. Every row is locked until its end, also those that another replica was quicker to write.
    """
    await connection.execute(_ROWS_BESIDE)
    await connection.copy_records_to_table("batch_messages", records=map(tuple, rows))
    done = await connection.execute(_UPSERT_MESSAGES)
    return rows_of_tag(done)


async def read_folds(connection: Connection, keys: Iterable[Key]) -> dict[Key, StoredFold]:
    """The folds of those messages that have a row."""
    message_ids, tenants = zip(*keys, strict=True)
    rows = await connection.fetch(_READ_FOLDS, tenants, [UUID(int=message_id) for message_id in message_ids])
    return {
        (row["message_id"].int, row["tenant"]): StoredFold(row["fold"], row["version"], row["status"]) for row in rows
    }


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
