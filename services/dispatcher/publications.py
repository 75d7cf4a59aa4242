"""The events that tell of an attempt. Made of its stored row and its leg's record alone, so that a repeat is the same to the byte."""

from __future__ import annotations

from datetime import datetime

from libs.bus.codec import encode
from libs.bus.port import Outgoing
from libs.bus.quick_events import quick
from libs.contracts import topics
from libs.contracts.events import (
    Leg,
    MessageEvent,
    Reason,
    SmsDeferred,
    SmsReturned,
    SmsStatus,
    event_id,
    person_key,
)
from libs.contracts.statuses import Status
from services.dispatcher.attempts import Attempt, LegState, Outcome, attempt_reference, due_at

SOURCE = "postrider/dispatcher"

_Status = quick(SmsStatus)
_StatusEvent = quick(MessageEvent[SmsStatus])

STATUSES: dict[Outcome, Status] = {
    Outcome.ACCEPTED: Status.SUBMITTED,
    Outcome.FAILED: Status.FAILED,
    Outcome.CANCELLED: Status.CANCELLED,
    Outcome.EXPIRED: Status.EXPIRED,
    Outcome.DOUBT: Status.IN_DOUBT,
    Outcome.DOUBT_BY_PEER: Status.IN_DOUBT,
    Outcome.LATE_FAILED: Status.FAILED,
    Outcome.LATE_RETURNED: Status.REFUSED,
}
"""What an outcome is called in the history. The others say nothing: the part is tried again in place."""

_NAMELESS = frozenset({Outcome.DOUBT, Outcome.DOUBT_BY_PEER, Outcome.LATE_FAILED, Outcome.LATE_RETURNED})
"""No id is, or was, known of the attempt: what is told of it names the reference that its receipt would repeat."""

OWN_REASONS: dict[Outcome, Reason] = {
    Outcome.CANCELLED: Reason("cancelled", "cancelled before it was sent"),
    Outcome.EXPIRED: Reason("expired", "its validity ended before it could be sent"),
    Outcome.DOUBT_BY_PEER: Reason("owner_gone", "the dispatcher ended between writing and hearing the answer"),
}

RESENT = Reason("in_doubt_resend", "in doubt, and the gateway's policy is to send once more")
CHANGED = Reason("contact_changed", "what is known of the person changed before it was sent")
PROVEN = Reason("late_refusal", "the provider's late answer proves that it was not accepted")


def events_of(leg: LegState, attempt: Attempt, resend: bool) -> list[Outgoing]:
    """What is told of an attempt with this outcome; nothing if its part is tried again in place.

    `resend`: the gateway's policy sends the message once more where this leg is in doubt. That opens the leg after it, so a late refusal
    is not final. It tells of that leg once more: the peer that declared the doubt may have found the refusal in its place.
    """
    outcome = attempt.outcome
    if outcome is Outcome.DEFERRED:
        return [_deferred(leg, attempt)]
    if outcome is Outcome.RETURNED:
        return [_returned(leg, attempt, CHANGED, refused=False)]
    status = STATUSES.get(outcome) if outcome is not None else None
    if status is None:
        return []
    if outcome is Outcome.LATE_FAILED and (resend or attempt.leg_opened_at is not None):
        status = Status.REFUSED
    events = [_status(leg, attempt, status)]
    if outcome is Outcome.LATE_RETURNED:
        events.append(_returned(leg, attempt, PROVEN, refused=True))
    elif status is Status.IN_DOUBT and resend:
        events.append(_returned(leg, attempt, RESENT, refused=False))
    elif attempt.leg_opened_at is not None:
        events.append(_returned(leg, attempt, RESENT, refused=False, at=attempt.leg_opened_at))
    return events


def _status(leg: LegState, attempt: Attempt, status: Status) -> Outgoing:
    event, outcome = leg.event, attempt.outcome
    data = event.data
    assert attempt.observed_at is not None and outcome is not None, "an outcome is stored with its time"
    reason = OWN_REASONS.get(outcome)
    if reason is None and attempt.reason_code is not None:
        reason = Reason(attempt.reason_code, attempt.reason_words or "")
    message_id = str(leg.key.message_id)
    nameless = outcome in _NAMELESS or (outcome is Outcome.ACCEPTED and not attempt.provider_id)
    told = _StatusEvent(
        id=event_id(SmsStatus.TYPE, message_id, data.leg.cycle, data.leg.leg, attempt.part, attempt.try_number, status),
        type=SmsStatus.TYPE,
        source=SOURCE,
        time=attempt.observed_at,
        subject=event.subject,
        traceparent=event.traceparent,
        data=_Status(
            tenant=data.message.tenant,
            recipient=data.message.recipient,
            leg=data.leg,
            part=attempt.part,
            parts=data.segments,
            try_number=attempt.try_number,
            status=status,
            observed_at=attempt.observed_at,
            gateway=data.gateway,
            provider_id=attempt.provider_id or None if outcome is Outcome.ACCEPTED else None,
            destination=data.phone if nameless or outcome is Outcome.ACCEPTED else None,
            reference=attempt_reference(leg, attempt.part, attempt.try_number) if nameless else None,
            reason=reason,
        ),
    )
    return Outgoing(topics.STATUS.name, message_id.encode(), encode(told))


def _returned(leg: LegState, attempt: Attempt, reason: Reason, refused: bool, at: datetime | None = None) -> Outgoing:
    """`at`: when the next leg was opened, if not when the outcome came."""
    at = at or attempt.observed_at
    assert at is not None, "an outcome is stored with its time"
    message = leg.event.data.message
    opening = SmsReturned(
        message=message,
        leg=_next_leg(leg, at),
        reason=reason,
        refused_part=attempt.part if refused else 0,
        refused_try=attempt.try_number if refused else 0,
    )
    return _opening(topics.returned(message.priority), leg, at, opening)


def _deferred(leg: LegState, attempt: Attempt) -> Outgoing:
    assert attempt.observed_at is not None, "an outcome is stored with its time"
    due = due_at(leg, attempt.observed_at)
    message = leg.event.data.message
    opening = SmsDeferred(
        message=message,
        leg=_next_leg(leg, due),
        due_at=due,
        deferred_at=attempt.observed_at,
        reason=Reason(attempt.reason_code or "", attempt.reason_words or ""),
        refused_part=attempt.part,
        refused_try=attempt.try_number,
    )
    return _opening(topics.deferred(message.priority), leg, attempt.observed_at, opening)


def _next_leg(leg: LegState, leg_at: datetime) -> Leg:
    return Leg(leg.key.cycle, leg.key.leg + 1, leg_at)


def _opening(topic: topics.Topic, leg: LegState, time: datetime, data: SmsReturned | SmsDeferred) -> Outgoing:
    """The event that opens the leg after this one."""
    event = leg.event
    told = MessageEvent(
        id=event_id(data.TYPE, event.subject, data.leg.cycle, data.leg.leg),
        type=data.TYPE,
        source=SOURCE,
        time=time,
        subject=event.subject,
        traceparent=event.traceparent,
        data=data,
    )
    return Outgoing(topic.name, person_key(data.message.tenant, data.message.recipient), encode(told))
