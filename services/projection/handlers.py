"""A batch of events into the outbox: journal, folds, personal data and offsets, all in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from aiokafka.structs import TopicPartition
from asyncpg import UniqueViolationError

from libs.bus.consumer import Batch
from libs.bus.record import Record
from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import EVENTS_FOLDED
from libs.storage.database import Pool
from services.projection import merging, store
from services.projection.folding import Folding, Work, by_message, folded, read
from services.projection.recent import RecentFolds
from services.projection.rows import MessageRow
from services.projection.store import Connection, Key, Position, StoredFold


async def handle(batch: Batch, *, pool: Pool, recent: RecentFolds) -> None:
    """Apply a batch; the stored offsets pass it in the same transaction."""
    crash_point("projection.receive-apply")
    prepared = batch.prepared if isinstance(batch.prepared, Prepared) else None
    await apply_batch(pool, recent, batch.records, batch.next_offsets(), prepared)
    crash_point("projection.apply-commit")


_MESSAGES_AT_ONCE = 40
"""About a millisecond: then PostgreSQL is not kept waiting for the next statement of the batch that is being written."""


class Prepared(NamedTuple):
    """A batch folded onto what is stored, or about to be: good as long as `generation` is that of the recent folds."""

    generation: int
    work: Work


async def prepare(records: Sequence[Record], *, pool: Pool, recent: RecentFolds, trusting: bool = True) -> Prepared:
    """All that can be done for a batch before the one before it is written, in steps that let that one go on in between.

    `trusting`: see `Folding`. Raises BadRecord, Undecodable, asyncpg's and the system's errors.
    """
    generation = recent.generation
    folding = Folding(recent, trusting=trusting)
    messages = iter(by_message(records))
    while step := list(islice(messages, _MESSAGES_AT_ONCE)):
        for of_message in step:
            folding.take(of_message)
        await asyncio.sleep(0)
    if folding.unknown:
        async with pool.acquire() as connection:
            stored = await store.read_folds(connection, folding.unknown)
        unknown = iter(folding.unknown.items())
        while looked_up := list(islice(unknown, _MESSAGES_AT_ONCE)):
            for key, told in looked_up:
                folding.onto(key, told, stored.get(key))
            await asyncio.sleep(0)
    return Prepared(generation, folding.work())


async def apply_batch(
    pool: Pool,
    recent: RecentFolds,
    records: Sequence[Record],
    offsets: Mapping[TopicPartition, int],
    prepared: Prepared | None = None,
) -> None:
    """Fold the records' events into the outbox and store `offsets`, before which all is applied then, and how far these records reach.

    Done again, or by two replicas at once, it changes nothing more. Raises asyncpg's and the system's errors; nothing is written then.
    """
    if prepared is None or prepared.generation != recent.generation:
        # What it took from the recent folds is gone.
        prepared = await prepare(records, pool=pool, recent=recent, trusting=prepared is None)
    recent.put(prepared.work.known)  # already now: the next batch is prepared while this one is written
    try:
        async with pool.acquire() as connection:
            await _write(connection, recent, prepared.work, _positions(records, offsets))
    except BaseException:
        recent.forget()
        raise
    for type_, count in prepared.work.types.items():
        EVENTS_FOLDED.labels(type_).inc(count)


async def _write(
    connection: Connection, recent: RecentFolds, work: Work, positions: Mapping[TopicPartition, Position]
) -> None:
    try:
        async with connection.transaction():
            await store.write_journal(connection, work.lines)
            await store.write_personal(connection, work.personal)
            await _write_messages(connection, recent, work)
            await store.write_positions(connection, positions)
    except UniqueViolationError:  # some of the events are there already
        await merging.prepare(connection)
        async with connection.transaction():
            await merging.merge_journal(connection, work.lines)
            await merging.merge_personal(connection, work.personal)
            await _write_messages(connection, recent, work)
            await store.write_positions(connection, positions)


def _positions(records: Sequence[Record], offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, Position]:
    reached = dict(offsets)
    for record in records:
        if record.offset >= reached.get(record.source, 0):
            reached[record.source] = record.offset + 1
    return {partition: Position(offsets.get(partition, 0), reach) for partition, reach in reached.items()}


async def _write_messages(connection: Connection, recent: RecentFolds, work: Work) -> None:
    """Write the rows; those that another replica was quicker to write are folded again onto what it wrote."""
    rows, known = work.rows, work.known
    if not rows or await store.write_messages(connection, rows) == len(rows):
        return
    keys = [(row.message_id.int, row.tenant) for row in rows]
    current = await store.read_folds(connection, keys)  # they are locked by now: nobody is quicker again
    again: dict[Key, StoredFold] = {}
    anew: list[MessageRow] = []
    for key in keys:
        if (there := current[key]) == known[key]:
            continue
        row = folded(read(work.records[key])[key], there)
        again[key] = there if row is None else StoredFold(row.fold, row.version, row.status)
        if row is not None:
            anew.append(row)
    if anew:
        await store.write_messages(connection, anew)
    # What was prepared meanwhile may rest on folds that were never stored, under the version of one that was.
    recent.correct(again)
