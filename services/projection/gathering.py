"""Lets the records of a message wait for each other, so that its row is folded and written once, and not with each of them.

A message's beginning is its request and its dispatch. Its end, a final status, waits for the beginning if that is not here yet, and is
handed on with all that is kept of the message; so is a deferral. What has no end goes on after a second. With much to do, requests and
dispatches are read only where an end waits for them: so hardly more is kept than what the carriers have. The order of records is lost,
within a partition too: the fold does not need it. docs/decisions/0017 says what this saves.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache

import msgspec
from aiokafka.structs import TopicPartition

from libs.bus.codec import subject_of
from libs.bus.partitioning import partition_of
from libs.bus.port import Found, Partitions
from libs.bus.record import Record
from libs.contracts.events import Priority, Recipient, person_key
from libs.contracts.statuses import FINALS, Status
from libs.contracts.topics import DISPATCH_PATTERN, PARTITIONS, STATUS, deferred, requested, returned
from services.projection.weighing import Weighing

KEPT_SECONDS = 1.0
"""How long a message without an end is kept back: what is shown of it is no older. And how long an end waits for its beginning at most."""
KEPT_BEHIND_SECONDS = 5.0
"""The same while there is more to do than can be done: messages that have ended go first then, and the processors are left to the services
that bring messages to their end. Not where most do not end meanwhile, as before a slow gateway: that would only hold up what follows."""
MANY_KEPT = 4_000
"""Records, about 1 kB each, of messages without an end. With more, beginnings are read only where an end waits for them."""
MANY_KEPT_OF_NO_END = 12_000
"""The same where waiting does not pay (`Weighing`)."""
MOST_KEPT = 32_000
"""With more records of messages without an end, the oldest are handed on; with more of ends that wait, the oldest of these."""
REMEMBERED = 10_000
"""Messages, at least, that are known to have been handed on: what comes after an end is handed on at once, and an end does not wait for a
beginning that was handed on before it."""
HAND_SECONDS = 0.3
"""The least time between two batches that are less than half full, while more comes."""

# Records are told apart by id and status, which are searched for in their bytes: the handler decodes them. One in which no id is found is
# handed on at once; an id or a status that is found in the wrong place costs a second write of a row, and no more.
_end_of_message = re.compile(b'"status":"(%s)"' % "|".join(FINALS).encode()).search
_BY_CARRIERS = frozenset({Status.DELIVERED.encode(), Status.FAILED.encode()})
_REQUEST, _DISPATCH = 1, 2  # bits; a return stands for the request of its leg
_BEGINNING = _REQUEST | _DISPATCH
_REQUESTS = frozenset(topic_of(priority).name for topic_of in (requested, returned) for priority in Priority)
_DEFERRALS = frozenset(deferred(priority).name for priority in Priority)


class _Message(msgspec.Struct, gc=False):
    since: float
    """When its first record came, or its end."""
    records: list[Record]
    lacks: int
    """Which part of its beginning is not here."""
    partition: int = 0
    """The one that has it, in the topics that are keyed by person. Only set while its end waits."""
    ended: bool = False


class _Data(msgspec.Struct, gc=False):
    tenant: str
    recipient: Recipient


class _Status(msgspec.Struct, gc=False):
    data: _Data


_read_status = msgspec.json.Decoder(_Status).decode


class _Remembered:
    """The last message ids that were added, at least `REMEMBERED` of them."""

    def __init__(self) -> None:
        self.newer: set[bytes] = set()
        self.older: set[bytes] = set()

    def __contains__(self, message_id: bytes) -> bool:
        return message_id in self.newer or message_id in self.older

    def turn(self) -> None:
        """To be called now and then: makes room."""
        if len(self.newer) > REMEMBERED:
            self.newer, self.older = set(), self.newer


class MessagesGathered:
    """See the top of this file; `libs.bus.port.Gathering` says what is asked of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._messages: dict[bytes, _Message] = {}  # without an end, the longest kept first
        self._kept = 0  # records in `_messages`
        self._lacking: dict[bytes, _Message] = {}  # whose end or deferral waits, the longest waiting first
        self._waiting = 0  # records in `_lacking`
        self._to_hand: deque[list[Record]] = deque()  # next, each with all that is kept of its message
        self._ready = 0  # records in `_to_hand`
        self._lately = _Remembered()  # messages that have ended
        self._begun = _Remembered()  # of which something was handed on before their end
        self._handed_at = 0.0
        self._weighing = Weighing()

    def __len__(self) -> int:
        return self._kept + self._waiting + self._ready

    def wanted(self, partitions: Partitions) -> Partitions:
        pays = self._weighing.worth_waiting and self._weighing.ends_wait
        if self._kept <= (MANY_KEPT if pays else MANY_KEPT_OF_NO_END):
            return partitions
        sought = {(message.partition, message.lacks) for message in self._lacking.values()}
        wanted = {partition for partition in partitions if not _part_of_beginning(partition.topic)}
        for number, lacks in sought:
            wanted.update(p for p in partitions if p.partition == number and _part_of_beginning(p.topic) & lacks)
        return frozenset(wanted) or partitions

    def pass_on(self, found: Found, most: int) -> Found:
        now = self._clock()
        self._lately.turn()
        self._begun.turn()
        for partition in sorted(found, key=_order):
            self._keep(partition, found[partition], now)
        number = sum(map(len, found.values()))
        come = any(_part_of_beginning(partition.topic) for partition in found)
        if not come and number < most:  # all that Kafka has is read, and has none of them
            self._give_up_lacking(now - HAND_SECONDS)
        else:
            self._give_up_lacking(now - (KEPT_BEHIND_SECONDS if self._kept > MANY_KEPT else KEPT_SECONDS))
        few = self._ready < most // 2
        behind = not few or self._kept > MANY_KEPT or number >= most // 4
        self._weighing.weigh(now, lambda: self._kept_since(now - 2 * KEPT_SECONDS))
        due = now - (KEPT_BEHIND_SECONDS if behind and self._weighing.worth_waiting else KEPT_SECONDS)
        if few and found and now - self._handed_at < HAND_SECONDS and not self._crowded(due):
            return {}
        handed: dict[TopicPartition, list[Record]] = {}
        left = most
        while self._to_hand and left > 0:
            left -= _hand(self._to_hand.popleft(), handed)
        self._ready -= most - left
        self._hand_oldest(left, due, handed)
        if handed:
            self._handed_at = now
        return handed

    def hurry(self) -> None:
        self._begun.newer.update(self._messages)
        self._to_hand.extend(message.records for message in self._messages.values())
        self._messages.clear()
        self._ready += self._kept
        self._kept = 0
        for message_id in list(self._lacking):
            self._let_go(message_id)
        self._handed_at = 0.0

    def forget(self) -> None:
        self._messages.clear()
        self._lacking.clear()
        self._to_hand.clear()
        self._kept = self._waiting = self._ready = 0

    def _keep(self, partition: TopicPartition, records: Sequence[Record], now: float) -> None:
        messages, lacking, lately, before = self._messages, self._lacking, self._lately.newer, self._lately.older
        of_status, defers = partition.topic == STATUS.name, partition.topic in _DEFERRALS
        part = _part_of_beginning(partition.topic)
        ready, met = self._ready, 0
        for record in records:
            value = record.raw or b""
            message_id = subject_of(value)
            if not message_id or message_id in lately or message_id in before:
                self._to_hand.append([record])
                self._ready += 1
                if part:
                    met += 1  # it would have, if its end had waited
            elif message_id in lacking:
                message = lacking[message_id]
                message.records.append(record)
                message.lacks &= ~part
                self._waiting += 1
                if not message.lacks:
                    met += 1
                    self._let_go(message_id)
            elif of_status and (end := _end_of_message(value)):
                self._settle(message_id, record, _BEGINNING if end[1] in _BY_CARRIERS else _REQUEST, now, ended=True)
            elif defers:
                self._settle(message_id, record, _REQUEST, now, ended=False)
            else:
                message = messages.get(message_id)
                if message is None:
                    messages[message_id] = _Message(now, [record], _BEGINNING & ~part)
                else:
                    message.records.append(record)
                    message.lacks &= ~part
                self._kept += 1
        self._weighing.ended += self._ready - ready
        self._weighing.met += met

    def _settle(self, message_id: bytes, record: Record, needs: int, now: float, *, ended: bool) -> None:
        """The end or the deferral of a message: it is handed on with all that is kept, once that has what it needs of the beginning."""
        message = self._messages.pop(message_id, None) or _Message(now, [], _BEGINNING)
        self._kept -= len(message.records)
        message.records.append(record)
        message.since, message.ended = now, ended
        message.lacks &= needs
        waits = message.lacks and self._weighing.ends_wait and message_id not in self._begun
        number = _partition_of_beginning(record) if waits else None
        if number is None:
            self._hand_next(message_id, message)
        else:
            message.partition = number
            self._lacking[message_id] = message
            self._waiting += len(message.records)

    def _let_go(self, message_id: bytes) -> None:
        """Let a message that has ended, or is deferred, wait no longer."""
        message = self._lacking.pop(message_id)
        self._waiting -= len(message.records)
        self._hand_next(message_id, message)

    def _hand_next(self, message_id: bytes, message: _Message) -> None:
        """Hand on a message that has ended, or is deferred, with all that there is of it."""
        self._to_hand.append(message.records)
        self._ready += len(message.records)
        if message.ended:  # else its return begins it anew
            self._lately.newer.add(message_id)

    def _give_up_lacking(self, due: float) -> None:
        """Hand on ends that wait since `due`, and of too many the first, though their beginning has not come."""
        while self._lacking:
            message_id, message = next(iter(self._lacking.items()))
            if message.since > due and self._waiting <= MOST_KEPT:
                break
            self._weighing.in_vain += 1
            self._weighing.ended += len(message.records)
            self._let_go(message_id)

    def _kept_since(self, moment: float) -> int:
        """How many records are kept that came by then."""
        count = 0
        for message in self._messages.values():
            if message.since > moment:
                break
            count += len(message.records)
        return count

    def _crowded(self, due: float) -> bool:
        if self._kept <= MANY_KEPT:
            return False
        return self._kept > MOST_KEPT or next(iter(self._messages.values())).since <= due

    def _hand_oldest(self, most: int, due: float, handed: dict[TopicPartition, list[Record]]) -> None:
        """Hand on those that are kept since `due`, and of too many the oldest."""
        old: list[bytes] = []
        count = 0
        for message_id, message in self._messages.items():
            if count >= most or (message.since > due and self._kept - count <= MOST_KEPT):
                break
            count += _hand(message.records, handed)
            old.append(message_id)
        for message_id in old:
            del self._messages[message_id]
        self._begun.newer.update(old)
        self._kept -= count
        self._weighing.aged += count


def _order(partition: TopicPartition) -> int:
    """In which order topics are taken: statuses last, and deferrals even after them, so that what they take with them is here."""
    return 2 if partition.topic in _DEFERRALS else int(partition.topic == STATUS.name)


def _partition_of_beginning(end: Record) -> int | None:
    """Where the beginning must be of the message that has this end or deferral. None if the bytes are no status: that a record is no event
    is for its handler to say."""
    if end.source.topic in _DEFERRALS:
        return end.source.partition  # keyed by person too
    try:
        data = _read_status(end.raw or b"").data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return partition_of(person_key(data.tenant, data.recipient), PARTITIONS)


_is_dispatch = re.compile(DISPATCH_PATTERN).match


@cache
def _part_of_beginning(topic: str) -> int:
    if topic in _REQUESTS:
        return _REQUEST
    return _DISPATCH if _is_dispatch(topic) else 0


def _hand(records: list[Record], handed: dict[TopicPartition, list[Record]]) -> int:
    for record in records:
        of_partition = handed.get(record.source)
        if of_partition is None:
            handed[record.source] = [record]
        else:
            of_partition.append(record)
    return len(records)
