"""The events that the scheduler publishes. Made of what came and what is stored alone, so that a repeat is the same to the byte."""

from __future__ import annotations

from datetime import datetime

from libs.bus.codec import encode, message_key
from libs.bus.port import Outgoing
from libs.contracts import topics
from libs.contracts.endings import whole_ending
from libs.contracts.events import (
    Leg,
    MessageEvent,
    PersonKind,
    Priority,
    Reason,
    Recipient,
    SmsDeferred,
    SmsReturned,
    event_id,
    person_key,
)
from libs.contracts.statuses import Status
from services.scheduler.store import Arrival, Deferral

SOURCE = "postrider/scheduler"
DUE = Reason("due", "its time has come")
ERASED = Reason("erased", "its text was deleted while it waited for its time")
CANCELLED = Reason("cancelled", "its cancellation was asked for while it waited for its time")

_RETURNED = {priority.value: topics.returned(priority).name for priority in Priority}
_KINDS = {kind.value: kind for kind in PersonKind}


def returning(event: MessageEvent[SmsDeferred]) -> bytes:
    """What is published when a deferral is due. It is made when that comes in: to return a million at once is copying."""
    deferred = event.data
    return encode(
        MessageEvent(
            id=event_id(SmsReturned.TYPE, event.subject, deferred.leg.cycle, deferred.leg.leg),
            type=SmsReturned.TYPE,
            source=SOURCE,
            time=deferred.due_at,
            subject=event.subject,
            data=SmsReturned(
                message=deferred.message,
                leg=deferred.leg,
                reason=DUE,
                refused_part=deferred.refused_part,
                refused_try=deferred.refused_try,
            ),
            traceparent=event.traceparent,
        )
    )


def outgoing(arrival: Arrival) -> Outgoing:
    """What is due goes back to the resolver; without its event it can only end, at the time at which it was due."""
    deferral, priority, event = arrival
    if event is None:
        return ending(deferral, deferral.due_at, Status.REJECTED, ERASED)
    return Outgoing(_RETURNED[priority], person_key(deferral.tenant, _recipient(deferral)), event)


def ending(deferral: Deferral, at: datetime, status: Status, reason: Reason) -> Outgoing:
    """The status of a message that ends here. `at` is when that was decided."""
    event = whole_ending(
        deferral.message_id,
        deferral.tenant,
        _recipient(deferral),
        Leg(deferral.cycle, deferral.leg, deferral.due_at),
        status,
        reason,
        at=at,
        source=SOURCE,
        traceparent=deferral.traceparent,
    )
    return Outgoing(topics.STATUS.name, message_key(deferral.message_id), encode(event))


def _recipient(deferral: Deferral) -> Recipient:
    return Recipient(_KINDS[deferral.kind], deferral.person)
