"""A batch of events into the outbox: journal, folds, personal data and offsets, all in one transaction."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from operator import attrgetter, itemgetter
from typing import NamedTuple
from uuid import UUID

from aiokafka.structs import TopicPartition
from asyncpg import UniqueViolationError

from libs.bus.consumer import Batch
from libs.bus.errors import BadRecord
from libs.bus.record import Record
from libs.contracts.events import Reason, SmsCommand, SmsRequested, SmsStatus
from libs.contracts.fold import AnyMessageEvent, apply, new_fold
from libs.contracts.message_ids import time_of
from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import EVENTS_FOLDED
from libs.storage.database import Pool
from libs.storage.uuids import sent_uuid
from services.projection import merging, store
from services.projection.journal import Line, line_of
from services.projection.recent import RecentFolds
from services.projection.rows import MessageRow, PersonalRow, decode_fold, message_row, personal_row
from services.projection.store import Connection, Key, Position, StoredFold

Events = dict[Key, list[AnyMessageEvent]]


async def handle(batch: Batch, *, pool: Pool, recent: RecentFolds) -> None:
    """Apply a batch; the stored offsets pass it in the same transaction."""
    crash_point("projection.receive-apply")
    prepared = batch.prepared if isinstance(batch.prepared, Prepared) else None
    await apply_batch(pool, recent, batch.records, batch.next_offsets(), prepared)
    crash_point("projection.apply-commit")


# Steps of about a millisecond: then PostgreSQL is not kept waiting for the next statement of the batch that is being written.
_RECORDS_AT_ONCE = 250
_MESSAGES_AT_ONCE = 100


class Prepared(NamedTuple):
    """A batch folded onto what is stored, or about to be: good as long as `generation` is that of the recent folds."""

    generation: int
    work: Work
    known: dict[Key, StoredFold]
    rows: list[MessageRow]


async def prepare(records: Sequence[Record], *, pool: Pool, recent: RecentFolds, trusting: bool = True) -> Prepared:
    """All that can be done for a batch before the one before it is written, in steps that let that one go on in between.

    `trusting`: that a message whose first request is in the batch has no row yet, unless it is among the recent ones.
    Raises BadRecord, asyncpg's and the system's errors.
    """
    generation = recent.generation
    sorting = Sorting()
    for start in range(0, len(records), _RECORDS_AT_ONCE):
        sorting.take(islice(records, start, start + _RECORDS_AT_ONCE))
        await asyncio.sleep(0)
    work = sorting.work()
    known = recent.take(work.events)
    unknown = work.events.keys() - known.keys()
    if trusting:
        unknown -= work.first_heard_of
    if unknown:
        async with pool.acquire() as connection:
            known |= await store.read_folds(connection, unknown)
    rows: list[MessageRow] = []
    for start in range(0, len(work.events), _MESSAGES_AT_ONCE):
        await asyncio.sleep(0)
        step = dict(islice(work.events.items(), start, start + _MESSAGES_AT_ONCE))
        rows += folded(step, known)
    return Prepared(generation, work, known, rows)


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
    recent.put(prepared.known)  # already now: the next batch is prepared while this one is written
    try:
        async with pool.acquire() as connection:
            await _write(connection, recent, prepared, _positions(records, offsets))
    except BaseException:
        recent.forget()
        raise
    for type_, count in Counter(map(_type, records)).items():
        EVENTS_FOLDED.labels(type_).inc(count)


async def _write(
    connection: Connection, recent: RecentFolds, prepared: Prepared, positions: Mapping[TopicPartition, Position]
) -> None:
    work = prepared.work
    try:
        async with connection.transaction():
            await store.write_journal(connection, work.lines)
            await store.write_personal(connection, work.personal)
            await _write_messages(connection, recent, prepared)
            await store.write_positions(connection, positions)
    except UniqueViolationError:  # some of the events are there already
        await merging.prepare(connection)
        async with connection.transaction():
            await merging.merge_journal(connection, work.lines)
            await merging.merge_personal(connection, work.personal)
            await _write_messages(connection, recent, prepared)
            await store.write_positions(connection, positions)


def _positions(records: Sequence[Record], offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, Position]:
    reached = dict(offsets)
    for record in records:
        if record.offset >= reached.get(record.source, 0):
            reached[record.source] = record.offset + 1
    return {partition: Position(offsets.get(partition, 0), reach) for partition, reach in reached.items()}


class Work(NamedTuple):
    """A batch by messages; each list in the order of its table's key."""

    events: Events
    first_heard_of: set[Key]
    """Messages whose first request is in the batch: the outbox hardly knows them yet."""
    lines: list[Line]
    personal: list[PersonalRow]


_SAY_TENANT = (SmsStatus, SmsCommand)
"""These have no message, but say themselves whose it is."""
_type = attrgetter("event.type")
_event_id = itemgetter(1)
_leg = itemgetter(1, 2)


class Sorting:
    """Sorts out what records' events are about, and what is written of them whatever was there before.

    Each event is looked at once, in the order in which they were decoded: they are more than fits the processor's caches.
    """

    def __init__(self) -> None:
        self._found: dict[Key, tuple[UUID, list[AnyMessageEvent], list[Line], list[PersonalRow]]] = {}
        self._first_heard_of: set[Key] = set()

    def take(self, records: Iterable[Record]) -> None:
        found = self._found
        for record in records:
            event: AnyMessageEvent = record.event
            data = event.data
            key = (event.subject.int, data.tenant if isinstance(data, _SAY_TENANT) else data.message.tenant)
            of_message = found.get(key)
            if of_message is None:
                of_message = found[key] = (sent_uuid(key[0]), [], [], [])
            message_id, events, lines, personal = of_message
            events.append(event)
            lines.append(line_of(message_id, event, record.source.topic))
            if not isinstance(data, _SAY_TENANT):
                if (row := personal_row(message_id, data)) is not None:
                    personal.append(row)
                if isinstance(data, SmsRequested) and data.leg.cycle == 1:
                    self._first_heard_of.add(key)

    def work(self) -> Work:
        """All that was taken."""
        work = Work({}, self._first_heard_of, [], [])
        for key in sorted(self._found):
            _, events, lines, personal = self._found[key]
            lines.sort(key=_event_id)
            personal.sort(key=_leg)
            work.events[key] = events
            work.lines.extend(lines)
            work.personal.extend(personal)
        return work


def folded(events: Events, known: dict[Key, StoredFold]) -> list[MessageRow]:
    """The rows of the messages that these events change, in the order of `events`. `known` is brought up to date."""
    rows: list[MessageRow] = []
    for key, of_message in events.items():
        before = known.get(key)
        if before is None:
            _check_id(of_message[0].subject)
            fold, version = new_fold(of_message[0]), 0
        else:
            fold, version = decode_fold(before.fold), before.version
        for event in of_message:
            apply(fold, event)
        row = message_row(sent_uuid(key[0]), fold, version + 1)
        if before is None or row.fold != before.fold:
            rows.append(row)
            known[key] = StoredFold(row.fold, row.version, row.status)
    return rows


async def _write_messages(connection: Connection, recent: RecentFolds, prepared: Prepared) -> None:
    """Write the rows; those that another replica was quicker to write are folded again onto what it wrote."""
    rows, known, events = prepared.rows, prepared.known, prepared.work.events
    if not rows or await store.write_messages(connection, rows) == len(rows):
        return
    keys = [(row.message_id.int, row.tenant) for row in rows]
    current = await store.read_folds(connection, keys)  # they are locked by now: nobody is quicker again
    lost = {key: events[key] for key in keys if current.get(key) != known[key]}
    again = {key: current[key] for key in lost}
    if rows := folded(lost, again):
        await store.write_messages(connection, rows)
    # What was prepared meanwhile may rest on folds that were never stored, under the version of one that was.
    recent.correct(again)


def _check_id(message_id: UUID) -> None:
    """Rows are kept and paged by the time in the id. Raises BadRecord where there is none."""
    try:
        time_of(message_id)
    except (ValueError, OverflowError):
        raise BadRecord(Reason("message-id", "The subject is no UUIDv7")) from None
