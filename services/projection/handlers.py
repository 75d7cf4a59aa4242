"""A batch of events into the outbox: journal, folds, personal data and offsets, all in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from aiokafka.structs import TopicPartition
from asyncpg import DeadlockDetectedError, UniqueViolationError

from libs.bus.batch import Batch
from libs.bus.port import Offsets
from libs.bus.record import Record
from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import EVENTS_FOLDED
from libs.storage.database import Pool
from services.projection import store
from services.projection.folding import Folding, Prepared, ToWrite, by_message, folded, read
from services.projection.recent import RecentFolds
from services.projection.rows import apart
from services.projection.store import Connection, Key, Position


async def handle(batch: Batch, *, pool: Pool, recent: RecentFolds) -> None:
    """Apply a batch; the stored offsets pass it in the same transaction."""
    crash_point("projection.receive-apply")
    prepared = batch.prepared if isinstance(batch.prepared, Prepared) else None
    await apply_batch(pool, recent, batch.records, batch.next_offsets(), prepared)
    crash_point("projection.apply-commit")


_MESSAGES_AT_ONCE = 40
"""Folded in about a millisecond: for no longer does the batch before, which is being written, have to wait for its next statement."""


async def prepare(records: Sequence[Record], *, pool: Pool, recent: RecentFolds, trusting: bool = True) -> Prepared:
    """Do for a batch all that can be done while the one before it is being written, in steps between which that one goes on.

    `trusting`: see `Folding`. Raises BadRecord, Undecodable, asyncpg's and the system's errors.
    """
    folding = Folding(recent, trusting=trusting)
    messages = iter(by_message(records))
    while step := list(islice(messages, _MESSAGES_AT_ONCE)):
        for of_message in step:
            folding.take(of_message)
        await asyncio.sleep(0)
    if folding.unknown:
        async with pool.acquire() as connection:
            stored = await store.read_stored(connection, folding.unknown)
        unknown = iter(folding.unknown.items())
        while looked_up := list(islice(unknown, _MESSAGES_AT_ONCE)):
            for key, told in looked_up:
                folding.onto(key, told, stored.get(key))
            await asyncio.sleep(0)
    return folding.prepared()


async def apply_batch(
    pool: Pool,
    recent: RecentFolds,
    records: Sequence[Record],
    offsets: Offsets,
    prepared: Prepared | None = None,
) -> None:
    """Fold the records' events into the outbox; store `offsets`, before which all is applied then, and how far these records reach.

    Done again, or by two replicas at once, it changes nothing more. Raises asyncpg's and the system's errors; nothing is written then.
    """
    if prepared is None:
        prepared = await prepare(records, pool=pool, recent=recent)
    elif not recent.still_hold(prepared.generation, prepared.known):
        prepared = await prepare(records, pool=pool, recent=recent, trusting=False)
    positions = _positions(records, offsets)
    presuming = True
    while True:
        try:
            await _write(pool, recent, prepared, positions, presuming=presuming)
            break
        except (UniqueViolationError, DeadlockDetectedError) as error:
            # Some of it is there already, or another replica is just writing it.
            if not presuming and isinstance(error, UniqueViolationError):
                raise
        presuming = False
        recent.meet()
        prepared = await prepare(records, pool=pool, recent=recent, trusting=False)
    for type_, count in prepared.types.items():
        EVENTS_FOLDED.labels(type_).inc(count)


async def _write(
    pool: Pool,
    recent: RecentFolds,
    prepared: Prepared,
    positions: Mapping[TopicPartition, Position],
    *,
    presuming: bool,
) -> None:
    """`presuming`: that what was prepared as new is new; raises UniqueViolationError or DeadlockDetectedError if it is not."""
    recent.put(prepared.known)  # already now: the next batch is prepared while this one is written
    try:
        async with pool.acquire() as connection, connection.transaction():
            to_write = await _write_messages(connection, recent, prepared.to_write, presuming=presuming)
            entries = [each.entry for each in to_write if each.entry is not None]
            personal = [row for each in to_write for row in each.personal]
            add = store.copy if presuming else store.merge
            await add(connection, "events", entries)
            await add(connection, "personal", personal if presuming else list(apart(personal)))
            await store.write_positions(connection, positions)
    except BaseException:
        recent.forget()
        raise


def _positions(records: Sequence[Record], offsets: Offsets) -> dict[TopicPartition, Position]:
    reached = dict(offsets)
    for record in records:
        if record.offset >= reached.get(record.source, 0):
            reached[record.source] = record.offset + 1
    return {partition: Position(offsets.get(partition, 0), reach) for partition, reach in reached.items()}


async def _write_messages(
    connection: Connection, recent: RecentFolds, to_write: Mapping[Key, ToWrite], *, presuming: bool
) -> Collection[ToWrite]:
    """Write the rows, and answer what else is to be written.

    Messages that another replica was quicker to write are folded again onto what it wrote.
    """
    rows = [each.row for each in to_write.values()]
    if presuming and recent.alone:
        await store.insert_messages(connection, (row for row in rows if row.version == 1))
        rows = [row for row in rows if row.version > 1]
    if not rows or await store.write_messages(connection, rows) == len(rows):
        return to_write.values()
    recent.meet()
    lost = await store.not_ours(connection, to_write)
    there = await store.read_stored(connection, lost)  # they are locked by now: nobody is quicker again
    anew = {key: folded(read(to_write[key].records)[key], there[key]) for key in lost}
    if again := [each.row for each in anew.values() if each is not None]:
        await store.write_messages_again(connection, again)
    # What was prepared meanwhile may rest on folds that were never stored, under the version of one that was.
    recent.correct({key: there[key] if each is None else each.stored for key, each in anew.items()})
    return [each for key, first in to_write.items() if (each := anew.get(key, first)) is not None]
