"""A message as the outbox shows it: as much of the projection's answer as a command about it needs."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from libs.contracts.events import Leg, Priority, Recipient
from libs.contracts.statuses import RANK, Status
from services.api_gateway.requests import person_of

DOUBTFUL = frozenset({Status.IN_DOUBT, Status.UNKNOWN})


class Step(msgspec.Struct, rename="camel"):
    """What is needed of a `Transition`."""

    status: Status
    cycle: int
    leg: int
    at: datetime


class Shown(msgspec.Struct, rename="camel"):
    """What is needed of the outbox's `SmsWithHistory`; what a newer outbox says beside it is ignored."""

    id: UUID
    number: int | None
    client_id: str | None
    staff_id: str | None
    message: str | None
    status: Status
    priority: Priority | None
    sender_id: str | None
    tags: tuple[str, ...]
    custom_data: dict[str, Any] | None
    accepted_at: datetime
    cycle: int
    leg: int
    history: list[Step]
    batch_id: UUID | None = None
    validity_seconds: int | None = None

    @property
    def newest_cycle(self) -> int:
        """Not always the shown one: what an earlier cycle delivered is shown for good."""
        return max((step.cycle for step in self.history), default=1)

    @property
    def shown_leg(self) -> Leg:
        """The leg that speaks for the message."""
        return self._leg(self.leg)

    @property
    def doubtful_legs(self) -> list[Leg]:
        """Those of the shown cycle of which nobody knows what became: the shown one, and what was sent again (`resend_once`) without an
        answer either, which would speak for the message once the shown one has ended."""
        furthest: dict[int, Status] = {}
        for step in self.history:
            if step.cycle == self.cycle and RANK[step.status] >= RANK[furthest.get(step.leg, Status.ACCEPTED)]:
                furthest[step.leg] = step.status
        return [self._leg(n) for n in sorted({self.leg, *(n for n, s in furthest.items() if s in DOUBTFUL)})]

    def _leg(self, number: int) -> Leg:
        """It began when it was accepted, the first as every other."""
        began = (s.at for s in self.history if (s.status, s.cycle, s.leg) == (Status.ACCEPTED, self.cycle, number))
        return Leg(self.cycle, number, next(began, self.accepted_at))

    @property
    def recipient(self) -> Recipient:
        return Recipient(*person_of(self.client_id, self.staff_id))


read_shown = msgspec.json.Decoder(Shown).decode
