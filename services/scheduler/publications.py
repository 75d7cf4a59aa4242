"""The events that the scheduler publishes. Made of what came and what is stored alone, so that a repeat is the same to the byte."""

from __future__ import annotations

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
from services.scheduler.store import Arrival, Settled

SOURCE = "postrider/scheduler"
DUE = Reason("due", "its time has come")
ERASED = Reason("erased", "its text was deleted while it waited for its time")
CANCELLED = Reason("cancelled", "its cancellation was asked for while it waited for its time")


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


def outgoing(entry: Arrival) -> Outgoing:
    """What is due goes back to the resolver; without its event it can only end, at the time at which it was due."""
    if entry.event is None:
        return ending(Settled(*entry[:8], settled_at=entry.due_at), Status.REJECTED, ERASED)
    topic = topics.returned(Priority(entry.priority))
    return Outgoing(topic.name, person_key(entry.tenant, Recipient(entry.kind, entry.person)), entry.event)


def ending(entry: Settled, status: Status, reason: Reason) -> Outgoing:
    """The status of a message that ends here."""
    event = whole_ending(
        entry.message_id,
        entry.tenant,
        Recipient(PersonKind(entry.kind), entry.person),
        Leg(entry.cycle, entry.leg, entry.due_at),
        status,
        reason,
        at=entry.settled_at,
        source=SOURCE,
        traceparent=entry.traceparent,
    )
    return Outgoing(topics.STATUS.name, message_key(entry.message_id), encode(event))
