"""The legs in this instance's hands: which wait for a claim, which wait for a moment, which are done."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from itertools import count

from libs.bus.record import Record
from libs.contracts.events import MessageEvent, Priority, SmsDispatch
from services.dispatcher.attempts import LegKey, LegState, next_tries
from services.dispatcher.ledger import Ask


class Board:
    """High priority goes first; within a priority, legs keep the order in which they came, but for those tried again."""

    def __init__(self) -> None:
        self._legs: dict[LegKey, LegState] = {}
        self._high: deque[LegState] = deque()
        self._normal: deque[LegState] = deque()
        self._later: list[tuple[float, int, LegState]] = []
        self._order = count()

    @property
    def waiting(self) -> int:
        """How many legs wait for a claim."""
        return len(self._high) + len(self._normal)

    @property
    def urgent(self) -> bool:
        """Whether a leg of high priority waits for a claim."""
        return bool(self._high)

    def add(self, event: MessageEvent[SmsDispatch], record: Record) -> None:
        """Take a record and its event. If the leg is here already, the record waits with the leg's others until it is done."""
        leg = LegState(event)
        known = self._legs.setdefault(leg.key, leg)
        known.records.append(record)
        if known is leg:
            self.queue(leg)

    def queue(self, leg: LegState) -> None:
        """Let it be claimed."""
        if not leg.queued and leg.records:
            leg.queued = True
            self._queue_of(leg).append(leg)

    def queue_first(self, legs: Iterable[LegState]) -> None:
        """Let these be claimed before all others of their priority; they were asked for, and not granted."""
        for leg in reversed(list(legs)):
            if not leg.queued and leg.records:
                leg.queued = True
                self._queue_of(leg).appendleft(leg)

    def queue_at(self, leg: LegState, moment: float) -> None:
        """Let it be claimed from this moment of the loop's clock on."""
        heapq.heappush(self._later, (moment, next(self._order), leg))

    def next_moment(self, now: float) -> float | None:
        """Queue what has become due; the moment of the next one, if there is one."""
        while self._later and self._later[0][0] <= now:
            self.queue(heapq.heappop(self._later)[2])
        return self._later[0][0] if self._later else None

    def take(self, room: int) -> list[Ask]:
        """The next parts to claim, at most `room`."""
        asks: list[Ask] = []
        for queue in (self._high, self._normal):
            while queue and len(asks) < room:
                leg = queue.popleft()
                leg.queued = False
                if not leg.records:
                    continue
                if leg.parts == 1 and not leg.attempts:  # most legs
                    asks.append(Ask(leg, 1, 1))
                    continue
                found = _asks(leg)
                free = room - len(asks)
                asks += found[:free]
                if len(found) > free:
                    self.queue_first([leg])
        return asks

    def take_expired(self, before: datetime, room: int) -> list[Ask]:
        """The parts of legs whose validity ended before this moment: about `room`, since the parts of a leg stay together."""
        asks: list[Ask] = []
        for queue in (self._high, self._normal):
            expired = [leg for leg in queue if leg.event.data.message.valid_until < before]
            for leg in expired:
                if len(asks) < room:
                    leg.queued = False
                    asks += _asks(leg) if leg.records else []
            if expired:
                waiting = [leg for leg in queue if leg.queued]
                queue.clear()
                queue.extend(waiting)
        return asks

    def finish(self, leg: LegState) -> list[Record]:
        """The leg is done; its records."""
        if not leg.records:
            return []
        del self._legs[leg.key]
        records, leg.records = leg.records, []  # a late answer may still name the leg, and they are large
        return records

    def withdraw(self, topic: str) -> None:
        """Give back a topic's records: another instance reads them again. A leg without a record is not ours any more."""
        for key, leg in list(self._legs.items()):
            leg.records = [record for record in leg.records if record.topic != topic]
            if not leg.records:
                del self._legs[key]
        self._high = deque(leg for leg in self._high if leg.records)
        self._normal = deque(leg for leg in self._normal if leg.records)
        self._later = [entry for entry in self._later if entry[2].records]
        heapq.heapify(self._later)

    def _queue_of(self, leg: LegState) -> deque[LegState]:
        return self._high if leg.event.data.message.priority is Priority.HIGH else self._normal


def _asks(leg: LegState) -> list[Ask]:
    """All that is to be claimed next of a leg."""
    return [Ask(leg, part, try_number) for part, try_number in next_tries(leg)]
