"""Records into rows: what is to be written of a batch, folded message by message.

A message's events are decoded, journalled and folded while they are in the processor's caches, and let go before those of the next:
passes over a whole batch, one for each step, cost a third more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

import msgspec

from libs.bus.codec import subject_of
from libs.bus.errors import BadRecord
from libs.bus.record import Record
from libs.contracts.events import Reason, SmsCommand, SmsRequested, SmsStatus
from libs.contracts.fold import AnyMessageEvent, apply, new_fold
from libs.contracts.message_ids import is_message_id
from libs.storage.uuids import sent_uuid
from services.projection.consumed import DECODERS
from services.projection.journal import NewLine, line_of
from services.projection.recent import RecentFolds
from services.projection.rows import MessageRow, NewPersonalRow, decode_fold, message_row, personal_row
from services.projection.store import Key, StoredFold

_SAY_TENANT = (SmsStatus, SmsCommand)
"""These have no message, but say themselves whose it is."""
_event_id = itemgetter(1)
_leg = itemgetter(1, 2)


@dataclass(slots=True)
class Told:
    """What records say of one message, whatever was known of it before; lines and rows in the order of their tables' keys."""

    message_id: UUID
    records: list[Record]
    events: list[AnyMessageEvent]
    lines: list[NewLine]
    personal: list[NewPersonalRow]
    first_heard_of: bool
    """Its first request is among them: the outbox hardly knows it yet."""


class ToWrite(msgspec.Struct, frozen=True, gc=False):
    """What is to be written of one message, and the records that say it, should it have to be folded once more."""

    records: list[Record]
    lines: list[NewLine]
    personal: list[NewPersonalRow]
    row: MessageRow | None
    """None if its row stays as it is."""


class Work(NamedTuple):
    """What is to be written of a batch; each list in the order of its table's key."""

    lines: list[NewLine]
    personal: list[NewPersonalRow]
    rows: list[MessageRow]
    known: dict[Key, StoredFold]
    """What is stored of each message then."""
    records: dict[Key, list[Record]]
    types: Counter[str]
    """How many events of each type it has."""


class Folding:
    """One batch: give `take` the records of each message in turn, and `onto` what was stored of those that it leaves `unknown`.

    `trusting`: that a message whose first request is in the batch has no row yet, unless it is among the recent ones.
    """

    def __init__(self, recent: RecentFolds, *, trusting: bool) -> None:
        self.unknown: dict[Key, Told] = {}
        self._to_write: dict[Key, ToWrite] = {}
        self._before: dict[Key, StoredFold | None] = {}
        self._known: dict[Key, StoredFold] = {}
        self._types: Counter[str] = Counter()
        self._recent = recent
        self._trusting = trusting

    def take(self, records: list[Record]) -> None:
        """Fold a message's records onto what was stored of it, if that is known. Raises BadRecord and Undecodable."""
        for key, told in read(records).items():
            for event in told.events:
                self._types[event.type] += 1
            if key in self._before:  # its id is written in two ways
                earlier = self.unknown.pop(key, None) or self._to_write[key]
                told = read([*earlier.records, *told.records])[key]
                before = self._before[key]
            else:
                before = self._before[key] = self._recent.take(key)
            if before is None and not (self._trusting and told.first_heard_of):
                self.unknown[key] = told
            else:
                self.onto(key, told, before)

    def onto(self, key: Key, told: Told, before: StoredFold | None) -> None:
        """Fold what is told of a message onto what was stored of it. Raises BadRecord."""
        row = folded(told, before)
        self._to_write[key] = ToWrite(told.records, told.lines, told.personal, row)
        if row is not None:
            self._known[key] = StoredFold(row.fold, row.version, row.status)
        elif before is not None:
            self._known[key] = before

    def work(self) -> Work:
        """All that was folded."""
        work = Work([], [], [], self._known, {}, self._types)
        for key in sorted(self._to_write):
            of_message = self._to_write[key]
            work.lines.extend(of_message.lines)
            work.personal.extend(of_message.personal)
            work.records[key] = of_message.records
            if of_message.row is not None:
                work.rows.append(of_message.row)
        return work


def by_message(records: Iterable[Record]) -> list[list[Record]]:
    """The records of each message, told apart by their bytes."""
    found: dict[bytes, list[Record]] = {}
    for record in records:
        subject = subject_of(record.raw)
        of_message = found.get(subject)
        if of_message is None:
            found[subject] = [record]
        else:
            of_message.append(record)
    return list(found.values())


def read(records: Sequence[Record]) -> dict[Key, Told]:
    """What the records say, by messages. Raises Undecodable."""
    found: dict[Key, Told] = {}
    for record in records:
        topic = record.source.topic
        event: AnyMessageEvent = DECODERS[topic](record.raw)
        data = event.data
        if isinstance(data, _SAY_TENANT):
            told = _told_of(found, event.subject, data.tenant)
        else:
            told = _told_of(found, event.subject, data.message.tenant)
            if (row := personal_row(told.message_id, data)) is not None:
                told.personal.append(row)
            if isinstance(data, SmsRequested) and data.leg.cycle == 1:
                told.first_heard_of = True
        told.records.append(record)
        told.events.append(event)
        told.lines.append(line_of(told.message_id, event, topic))
    for told in found.values():
        told.lines.sort(key=_event_id)
        told.personal.sort(key=_leg)
    return found


def _told_of(found: dict[Key, Told], message_id: UUID, tenant: str) -> Told:
    key = (message_id.int, tenant)
    told = found.get(key)
    if told is None:
        told = found[key] = Told(sent_uuid(message_id.int), [], [], [], [], first_heard_of=False)
    return told


def folded(told: Told, before: StoredFold | None) -> MessageRow | None:
    """A message's row with what is told of it; None if that is as before. Raises BadRecord."""
    if before is None:
        _check_id(told.message_id)
        fold, version = new_fold(told.events[0]), 0
    else:
        fold, version = decode_fold(before.fold), before.version
    for event in told.events:
        apply(fold, event)
    row = message_row(told.message_id, fold, version + 1)
    return row if before is None or row.fold != before.fold else None


def _check_id(message_id: UUID) -> None:
    """Rows are kept and paged by the time in the id. Raises BadRecord where there is none."""
    if not is_message_id(message_id):
        raise BadRecord(Reason("message-id", "The subject is no UUIDv7"))
