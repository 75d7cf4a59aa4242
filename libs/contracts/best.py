"""The event that speaks for one place: for a message, or for one try of one of its parts."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from libs.contracts.events import Reason
from libs.contracts.statuses import RANK, Status
from libs.contracts.without_receipt import is_without_receipt


class Best(NamedTuple):
    """The greatest event seen for one place: by rank, then time, then event id."""

    status: Status
    observed_at: datetime
    event_id: str
    reason: Reason | None

    def order(self) -> tuple[int, datetime, str]:
        return (RANK[self.status], self.observed_at, self.event_id)

    def over(self, other: Best) -> bool:
        """Whether this is the greater one."""
        rank, other_rank = RANK[self.status], RANK[other.status]
        return rank > other_rank or (rank == other_rank and self[1:3] > other[1:3])

    def over_in_try(self, other: Best) -> bool:
        """The same of two events about one try. One that says that no receipt was asked for gives way to a delivery alone."""
        without_receipt = is_without_receipt(self.reason)
        if without_receipt is is_without_receipt(other.reason):
            return self.over(other)
        return other.status is not Status.DELIVERED if without_receipt else self.status is Status.DELIVERED

    @property
    def shown_status(self) -> Status:
        """A refused try is followed by another: meanwhile the message waits."""
        return Status.QUEUED if self.status is Status.REFUSED else self.status
