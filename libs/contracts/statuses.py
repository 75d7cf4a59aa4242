"""The words for what became of a message, and their order."""

from __future__ import annotations

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
    # Late proof that a doubtful attempt was not taken, while the message goes on elsewhere. In the history alone:
    # the message shows as `queued`.
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
