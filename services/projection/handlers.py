"""A batch of events into the outbox: journal, folds, personal data and offsets, all in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from aiokafka.structs import TopicPartition

from libs.bus.consumer import Batch
from libs.bus.errors import BadRecord
from libs.bus.record import Record
from libs.contracts.events import Reason, SmsCommand, SmsStatus
from libs.contracts.fold import AnyMessageEvent, apply, new_fold
from libs.contracts.message_ids import time_of
from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import EVENTS_FOLDED
from libs.storage.database import Pool
from services.projection import store
from services.projection.journal import Line, line_of
from services.projection.recent import RecentFolds
from services.projection.rows import MessageRow, PersonalRow, decode_fold, encode_fold, message_row, personal_row
from services.projection.store import Connection, Key, StoredFold

Events = dict[Key, list[AnyMessageEvent]]


async def handle(batch: Batch, *, pool: Pool, recent: RecentFolds) -> None:
    """Apply a batch; the stored offsets pass it in the same transaction."""
    crash_point("projection.receive-apply")
    # A partition's records are in order: the last one's offset stays.
    await apply_batch(pool, recent, batch.records, {record.source: record.offset + 1 for record in batch})
    crash_point("projection.apply-commit")


async def apply_batch(
    pool: Pool, recent: RecentFolds, records: Sequence[Record], offsets: Mapping[TopicPartition, int]
) -> None:
    """Fold the records' events into the outbox and store `offsets`, those of the next records to apply.

    Done again, or by two replicas at once, it changes nothing more. Raises asyncpg's and the system's errors; nothing is written then.
    """
    events: Events = {}
    lines: list[Line] = []
    personal: list[PersonalRow] = []
    for record in records:
        event: AnyMessageEvent = record.event
        lines.append(line_of(event, record.topic))
        if (row := personal_row(event)) is not None:
            personal.append(row)
        events.setdefault((_tenant(event), event.subject.bytes), []).append(event)
    async with pool.acquire() as connection:
        known = recent.get(events)
        if missing := events.keys() - known.keys():
            known |= await store.read_folds(connection, missing)
        rows = folded(events, known)
        await store.prepare(connection)
        async with connection.transaction():
            if lines:
                await store.write_journal(connection, lines)
            if personal:
                await store.write_personal(connection, personal)
            written = await _write_messages(connection, rows, events)
            await store.write_offsets(connection, offsets)
    recent.put(known | written)
    _count(records)


def folded(events: Events, known: Mapping[Key, StoredFold]) -> list[MessageRow]:
    """The rows of the messages that these events change."""
    rows: list[MessageRow] = []
    for key, of_message in events.items():
        before = known.get(key)
        fold = new_fold(of_message[0]) if before is None else decode_fold(before.fold)
        for event in of_message:
            apply(fold, event)
        after = encode_fold(fold)
        if before is None:
            _check_id(of_message[0].subject)
            rows.append(message_row(of_message[0].subject, fold, after, 1))
        elif after != before.fold:
            rows.append(message_row(of_message[0].subject, fold, after, before.version + 1))
    return rows


async def _write_messages(connection: Connection, rows: Sequence[MessageRow], events: Events) -> dict[Key, StoredFold]:
    """Write the rows; those that another replica was quicker to write are folded again onto what it wrote. What is stored now."""
    if not rows:
        return {}
    stored = _stored(rows)
    if await store.write_messages(connection, rows) == len(rows):
        return stored
    current = await store.read_folds(connection, stored)  # they are locked by now: nobody is quicker again
    lost = {key: events[key] for key in stored if current.get(key) != stored[key]}
    again = folded(lost, current)
    if again:
        await store.write_messages(connection, again)
    return current | _stored(again)


def _stored(rows: Iterable[MessageRow]) -> dict[Key, StoredFold]:
    return {(row.tenant, row.message_id.bytes): StoredFold(row.fold, row.version) for row in rows}


def _tenant(event: AnyMessageEvent) -> str:
    data = event.data
    return data.tenant if isinstance(data, (SmsStatus, SmsCommand)) else data.message.tenant


def _check_id(message_id: UUID) -> None:
    """Rows are kept and paged by the time in the id. Raises BadRecord where there is none."""
    try:
        time_of(message_id)
    except (ValueError, OverflowError):
        raise BadRecord(Reason("message-id", "The subject is no UUIDv7")) from None


def _count(records: Sequence[Record]) -> None:
    by_type: dict[str, int] = {}
    for record in records:
        by_type[record.event.type] = by_type.get(record.event.type, 0) + 1
    for type_, count in by_type.items():
        EVENTS_FOLDED.labels(type_).inc(count)
