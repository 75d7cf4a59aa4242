"""Records into rows: what is to be written of a batch, folded message by message.

A message's events are decoded, journalled and folded while they are in the processor's caches, and let go before those of the next:
passes over a whole batch, one for each step, cost a third more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from libs.bus.codec import subject_of
from libs.bus.errors import BadRecord
from libs.bus.record import Record
from libs.contracts.events import Reason, SmsCommand, SmsRequested, SmsStatus
from libs.contracts.fold import AnyMessageEvent, apply, new_fold
from libs.contracts.message_ids import is_message_id
from libs.storage.uuids import quick_uuid
from services.projection.consumed import DECODERS
from services.projection.journal import NewEntry, NewLine, entry_of, id_of, line_of
from services.projection.recent import RecentFolds
from services.projection.rows import MessageRow, NewPersonalRow, decode_fold, message_row, personal_rows
from services.projection.store import Key, Stored

NO_MESSAGE_ID = Reason("message-id", "The subject is no UUIDv7")
_SAY_TENANT = (SmsStatus, SmsCommand)
"""These have no message, but say themselves whose it is."""


class Told(msgspec.Struct, gc=False):
    """What records say of one message, whatever was known of it before."""

    message_id: UUID
    records: list[Record]
    events: list[AnyMessageEvent]
    first_heard_of: bool
    """Its first request is among them: the outbox hardly knows it yet."""


class ToWrite(msgspec.Struct, frozen=True, gc=False):
    """What is to be written of one message, and the records that say it, should it have to be folded once more."""

    records: list[Record]
    row: MessageRow
    entry: NewEntry | None
    """None if the journal has it all, and the row was lost."""
    personal: list[NewPersonalRow]
    stored: Stored
    """What there is of the message then."""


class Prepared(NamedTuple):
    """A batch folded onto what is stored, or about to be: good as long as `generation` is that of the recent folds."""

    generation: int
    to_write: dict[Key, ToWrite]
    """In the order of keys."""
    known: dict[Key, Stored]
    """What there is of each message then, also of those of which nothing is to be written."""
    types: Counter[str]
    """How many events of each type it has."""


class Folding:
    """One batch: give `take` the records of each message in turn, and `onto` what was stored of those that it leaves `unknown`.

    `trusting`: believe that a message whose first request is in the batch has no row yet, unless it is among the recent ones.
    """

    def __init__(self, recent: RecentFolds, *, trusting: bool) -> None:
        self.unknown: dict[Key, Told] = {}
        self._taken: dict[Key, tuple[list[Record], Stored | None]] = {}
        self._to_write: dict[Key, ToWrite] = {}
        self._unchanged: dict[Key, Stored] = {}
        self._types: Counter[str] = Counter()
        self._recent = recent
        self._generation = recent.generation
        self._trusting = trusting

    def take(self, records: list[Record]) -> None:
        """Fold a message's records onto what was stored of it, if that is known. Raises BadRecord and Undecodable."""
        for key, told in read(records).items():
            for event in told.events:
                self._types[event.type] += 1
            if key in self._taken:  # once more, as its id is written in two ways
                self.unknown.pop(key, None)
                records, before = self._taken[key]
                told = read([*records, *told.records])[key]
            else:
                before = self._recent.take(key)
            self._taken[key] = (told.records, before)
            if before is None and not (self._trusting and told.first_heard_of):
                self.unknown[key] = told
            else:
                self.onto(key, told, before)

    def onto(self, key: Key, told: Told, before: Stored | None) -> None:
        """Fold what is told of a message onto what was stored of it. Raises BadRecord."""
        to_write = folded(told, before)
        if to_write is not None:
            self._to_write[key] = to_write
        elif before is not None:
            self._unchanged[key] = before

    def prepared(self) -> Prepared:
        """All that was folded."""
        to_write = {key: self._to_write[key] for key in sorted(self._to_write)}
        known = self._unchanged | {key: each.stored for key, each in to_write.items()}
        return Prepared(self._generation, to_write, known, self._types)


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
        event: AnyMessageEvent = DECODERS[record.source.topic](record.raw)
        data = event.data
        if isinstance(data, _SAY_TENANT):
            told = _told_of(found, event.subject, data.tenant)
        else:
            told = _told_of(found, event.subject, data.message.tenant)
            if isinstance(data, SmsRequested) and data.leg.cycle == 1:
                told.first_heard_of = True
        told.records.append(record)
        told.events.append(event)
    return found


def _told_of(found: dict[Key, Told], message_id: UUID, tenant: str) -> Told:
    key = (message_id.int, tenant)
    told = found.get(key)
    if told is None:
        told = found[key] = Told(quick_uuid(message_id.int), [], [], first_heard_of=False)
    return told


def folded(told: Told, before: Stored | None) -> ToWrite | None:
    """What is to be written of a message when this is told of it; None if all of it is stored already. Raises BadRecord."""
    known = () if before is None else before.event_ids
    ids: list[bytes] = []
    lines: list[NewLine] = []
    new: list[AnyMessageEvent] = []
    for record, event in zip(told.records, told.events, strict=True):
        id_ = id_of(event)
        if id_ not in known and id_ not in ids:
            ids.append(id_)
            new.append(event)
            lines.append(line_of(id_, record.source.topic, event))
    if before is not None and before.fold:
        if not new:
            return None
        fold, version = decode_fold(before.fold), before.version
    else:
        _check_id(told.message_id)
        fold, version = new_fold(told.events[0]), 0
    for event in told.events:
        apply(fold, event)
    row = message_row(told.message_id, fold, version + 1)
    return ToWrite(
        told.records,
        row,
        entry_of(told.message_id, lines) if lines else None,
        personal_rows(told.message_id, new),
        Stored(row.fold, row.version, row.status, (*known, *ids), fold.request is not None),
    )


def _check_id(message_id: UUID) -> None:
    """Rows are kept and paged by the time in the id. Raises BadRecord where there is none."""
    if not is_message_id(message_id):
        raise BadRecord(NO_MESSAGE_ID)
