"""The status of a message that ends as a whole, without any of its parts having been sent in this leg."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from libs.contracts.events import Leg, MessageEvent, Reason, Recipient, SmsStatus, event_id
from libs.contracts.statuses import Status


def whole_ending(
    message_id: UUID,
    tenant: str,
    recipient: Recipient,
    leg: Leg,
    status: Status,
    reason: Reason | None,
    *,
    at: datetime,
    source: str,
    traceparent: str | None,
) -> MessageEvent[SmsStatus]:
    """The event speaks of no part, so `part`, `parts` and `try_number` are 0. `at` is when that was decided."""
    return MessageEvent(
        id=event_id(SmsStatus.TYPE, message_id, leg.cycle, leg.leg, 0, 0, status),
        type=SmsStatus.TYPE,
        source=source,
        time=at,
        subject=message_id,
        data=SmsStatus(
            tenant=tenant,
            recipient=recipient,
            leg=leg,
            part=0,
            parts=0,
            try_number=0,
            status=status,
            observed_at=at,
            reason=reason,
        ),
        traceparent=traceparent,
    )
