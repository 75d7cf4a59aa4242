"""What the carrier counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_KEPT_SECONDS: Final = 3_600


@dataclass(slots=True)
class ArrivalsOfASecond:
    received: int = 0
    accepted: int = 0


@dataclass(slots=True)
class Statistics:
    accepted: int = 0
    """submits"""
    refused: Counter[int] = field(default_factory=Counter[int])
    """submits by the command_status they were answered with"""
    unanswered: int = 0
    """submits left in silence, accepted or not"""
    binds_granted: int = 0
    binds_refused: Counter[int] = field(default_factory=Counter[int])
    """by command_status"""
    receipts_made: int = 0
    """receipts due so far, copies and intermediate ones included; each leaves once a receiver takes it"""
    deliveries_sent: int = 0
    """deliver_sm written, repetitions included"""
    deliveries_acknowledged: int = 0
    deliveries_refused: int = 0
    """deliver_sm answered with an error; each is sent again"""
    deliveries_unanswered: int = 0
    """deliver_sm not answered in time, or before their session ended; each is sent again"""
    peak_binds: Counter[str] = field(default_factory=Counter[str])
    """the most simultaneous binds by system_id"""
    arrivals: dict[int, ArrivalsOfASecond] = field(default_factory=dict[int, ArrivalsOfASecond])
    """by second since the epoch, for the last hour"""

    def reset(self) -> None:
        """Counts from zero."""
        self.__init__()

    def count_arrivals(self, at_us: int, received: int, accepted: int) -> None:
        second = at_us // 1_000_000
        arrivals = self.arrivals.get(second)
        if arrivals is None:
            self.arrivals[second] = arrivals = ArrivalsOfASecond()
            while len(self.arrivals) > _KEPT_SECONDS:
                del self.arrivals[next(iter(self.arrivals))]
        arrivals.received += received
        arrivals.accepted += accepted
        self.accepted += accepted
