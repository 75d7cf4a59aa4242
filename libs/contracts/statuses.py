"""The words for what became of a message, their order, and what other systems call them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The status of a message or of one of its parts. It only moves forward: see `RANK`."""

    ACCEPTED = "accepted"
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    IN_DOUBT = "in_doubt"
    REFUSED = "refused"
    SUBMITTED = "submitted"
    BUFFERED = "buffered"
    UNKNOWN = "unknown"
    FAILED = "failed"
    EXPIRED = "expired"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    DELIVERED = "delivered"


RANK: dict[Status, int] = {
    Status.ACCEPTED: 10,
    Status.SCHEDULED: 20,
    Status.QUEUED: 30,
    Status.IN_DOUBT: 45,
    # Late proof that a doubtful attempt was not taken, while the message goes on elsewhere. Never shown: it reads as `queued`.
    Status.REFUSED: 46,
    Status.SUBMITTED: 50,
    Status.BUFFERED: 60,
    Status.UNKNOWN: 90,
    Status.FAILED: 100,
    Status.EXPIRED: 101,
    Status.REJECTED: 102,
    Status.CANCELLED: 103,
    Status.DELIVERED: 110,
}
"""Within a leg the greater rank wins, whatever order the events arrive in."""

NEGATIVE_FINALS = frozenset({Status.FAILED, Status.EXPIRED, Status.REJECTED, Status.CANCELLED})
FINALS = NEGATIVE_FINALS | {Status.DELIVERED}
UNSETTLED = frozenset({Status.IN_DOUBT, Status.SUBMITTED, Status.BUFFERED, Status.UNKNOWN})
"""The carrier has, or may have, the message: a later leg's bad end says nothing about it."""


@dataclass(frozen=True, slots=True)
class ForeignWords:
    """What the systems that Postrider speaks to call a status."""

    mifos: str
    fineract_code: int
    outbox: str
    dhis2: str
    africas_talking: str | None


FOREIGN: dict[Status, ForeignWords] = {
    Status.ACCEPTED: ForeignWords("Pending", 100, "pending", "OUTBOUND", None),
    Status.SCHEDULED: ForeignWords("Pending", 100, "pending", "SCHEDULED", None),
    Status.QUEUED: ForeignWords("Pending", 100, "pending", "PENDING", "Queued"),
    Status.REFUSED: ForeignWords("Pending", 100, "pending", "PENDING", "Queued"),
    Status.IN_DOUBT: ForeignWords("Pending", 150, "pending", "PENDING", None),
    Status.SUBMITTED: ForeignWords("Sent", 200, "sent", "SENT", "Submitted"),
    Status.BUFFERED: ForeignWords("Sent", 200, "sent", "SENT", "Buffered"),
    Status.UNKNOWN: ForeignWords("Sent", 200, "sent", "SENT", None),
    Status.FAILED: ForeignWords("Declined", 400, "failed", "FAILED", "Failed"),
    Status.EXPIRED: ForeignWords("Declined", 400, "failed", "FAILED", "Expired"),
    Status.REJECTED: ForeignWords("Declined", 400, "failed", "ERROR", "Rejected"),
    Status.CANCELLED: ForeignWords("Declined", 400, "failed", "FAILED", None),
    Status.DELIVERED: ForeignWords("Delivered", 300, "sent", "DELIVERED", "Success"),
}
