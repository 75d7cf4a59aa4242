"""What is shown of a message: the answer of the fold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from libs.contracts.events import Encoding, Reason
from libs.contracts.statuses import Status


@dataclass(frozen=True, slots=True)
class PartView:
    """One part of the leg that is shown. `part` counts from 1."""

    part: int
    status: Status
    provider_id: str | None
    try_number: int


@dataclass(frozen=True, slots=True)
class MessageView:
    """What is shown: the outbox row. Times are our clock at the cause; `scheduled_at` is when it will be due, while it waits for that."""

    status: Status
    observed_at: datetime
    cycle: int
    leg: int
    reason: Reason | None
    gateway: str | None
    encoding: Encoding | None
    segments: int
    submitted_at: datetime | None
    delivered_at: datetime | None
    possible_double: bool
    parts: tuple[PartView, ...]
    scheduled_at: datetime | None = None
    cancel_asked_at: datetime | None = None
