"""Lets the records of a message wait for each other, so that its row is folded and written once, and not with each of them.

A record that ends a message is handed on at once, with all that is kept of the message; what goes on is kept for a second. The order
between messages and within a partition is lost by it: the fold does not need it.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec
from aiokafka.structs import TopicPartition

from libs.bus.codec import subject_of
from libs.bus.port import Partitions
from libs.bus.record import Record
from libs.contracts.statuses import FINALS
from libs.contracts.topics import STATUS

KEPT_SECONDS = 1.0
"""How long a message that goes on is kept back: what is shown of it is no older."""
KEPT_BEHIND_SECONDS = 3.0
"""The same while there is more to do than can be done: then messages that have ended go first. Not where most do not end meanwhile, as
before a slow gateway: what is kept longer then only holds up what follows."""
MOST_KEPT = 12_000
"""Records, about 1 kB each. With more, only statuses are read, which end messages, and of other topics what lags behind them; with twice
as many, the oldest are handed on."""
LATELY = 10_000
"""Messages that have ended, of which nothing is kept back any more: an end without its beginning looks strange."""
HAND_SECONDS = 0.3
"""The least time between two batches that are less than half full, while more comes."""

# Events are told apart by their bytes: they are decoded when they are handed on. One that hides its id is handed on at once, and an id
# or a status that is found in the wrong place costs a second write of a row.
_ends_message = re.compile(b'"status":"(?:%s)"' % "|".join(FINALS).encode()).search


class _Message(msgspec.Struct, frozen=True, gc=False):
    since: float
    records: list[Record]


class MessagesGathered:
    """See the top of this file; `libs.bus.port.Gathering` says what is asked of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._messages: dict[bytes, _Message] = {}  # the longest kept first
        self._kept = 0
        self._ended: deque[list[Record]] = deque()
        self._ready = 0
        self._reached: dict[TopicPartition, bytes] = {}  # a message last read; ids are in the order of acceptance
        self._lately: set[bytes] = set()
        self._before: set[bytes] = set()
        self._handed_at = 0.0
        self._worth_waiting = True
        self._weighed_at = 0.0
        self._ended_since = self._aged_since = 0  # records handed on since then: with an end, or after their time

    def __len__(self) -> int:
        return self._kept + self._ready

    def wanted(self, partitions: Partitions) -> Partitions:
        if self._kept <= MOST_KEPT:
            return partitions
        statuses = frozenset(filter(_of_status, partitions))
        newest = max((self._reached.get(partition, b"") for partition in statuses), default=b"")
        behind = {partition for partition in partitions if self._reached.get(partition, b"") < newest}
        return statuses | behind or partitions

    def pass_on(
        self, found: Mapping[TopicPartition, Sequence[Record]], most: int
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        now = self._clock()
        for partition in sorted(found, key=_of_status):  # statuses last, when what they end is here
            self._keep(partition, found[partition], now)
        few = self._ready < most // 2
        behind = not few or self._kept > MOST_KEPT or sum(map(len, found.values())) >= most // 4
        self._weigh(now)
        due = now - (KEPT_BEHIND_SECONDS if behind and self._worth_waiting else KEPT_SECONDS)
        if few and found and now - self._handed_at < HAND_SECONDS and not self._crowded(due):
            return {}
        handed: dict[TopicPartition, list[Record]] = {}
        left = most
        while self._ended and left > 0:
            left -= _hand(self._ended.popleft(), handed)
        self._ready -= most - left
        self._hand_oldest(left, due, handed)
        if handed:
            self._handed_at = now
        return handed

    def hurry(self) -> None:
        self._ended.extend(message.records for message in self._messages.values())
        self._messages.clear()
        self._ready += self._kept
        self._kept = 0
        self._handed_at = 0.0

    def forget(self) -> None:
        self._messages.clear()
        self._ended.clear()
        self._reached.clear()
        self._kept = self._ready = 0

    def _keep(self, partition: TopicPartition, records: Sequence[Record], now: float) -> None:
        messages, ended = self._messages, self._ended
        if len(self._lately) > LATELY:
            self._lately, self._before = set(), self._lately
        lately, before = self._lately, self._before
        of_status = _of_status(partition)
        ready = 0
        for record in records:
            value = record.raw or b""
            message_id = subject_of(value)
            if not message_id or message_id in lately or message_id in before:
                ended.append([record])
                ready += 1
            elif of_status and _ends_message(value):
                message = messages.pop(message_id, None)
                of_message = [] if message is None else message.records
                of_message.append(record)
                ended.append(of_message)
                ready += len(of_message)
                lately.add(message_id)
            elif (message := messages.get(message_id)) is None:
                messages[message_id] = _Message(now, [record])
            else:
                message.records.append(record)
        self._ready += ready
        self._ended_since += ready
        self._kept += len(records) - ready
        if records:  # the middle one of three: a message that overtook the others, or was overtaken, does not count
            self._reached[partition] = sorted(subject_of(records[at].raw) for at in (0, len(records) // 2, -1))[1]

    def _weigh(self, now: float) -> None:
        if now - self._weighed_at >= KEPT_BEHIND_SECONDS:
            self._worth_waiting = self._ended_since >= self._aged_since
            self._weighed_at = now
            self._ended_since = self._aged_since = 0

    def _crowded(self, due: float) -> bool:
        if self._kept <= MOST_KEPT:
            return False
        return self._kept > 2 * MOST_KEPT or next(iter(self._messages.values())).since <= due

    def _hand_oldest(self, most: int, due: float, handed: dict[TopicPartition, list[Record]]) -> None:
        """Hand on those that are kept since `due`, and of too many the oldest."""
        old: list[bytes] = []
        count = 0
        for message_id, message in self._messages.items():
            if count >= most or (message.since > due and self._kept - count <= 2 * MOST_KEPT):
                break
            count += _hand(message.records, handed)
            old.append(message_id)
        for message_id in old:
            del self._messages[message_id]
        self._kept -= count
        self._aged_since += count


def _of_status(partition: TopicPartition) -> bool:
    return partition.topic == STATUS.name


def _hand(records: list[Record], handed: dict[TopicPartition, list[Record]]) -> int:
    for record in records:
        of_partition = handed.get(record.source)
        if of_partition is None:
            handed[record.source] = [record]
        else:
            of_partition.append(record)
    return len(records)
