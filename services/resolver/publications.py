"""The events that tell of a decision. Made of the stored decision and its cause alone, so that a repeat is the same to the byte."""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

from libs.bus.codec import encode, message_key
from libs.bus.port import Outgoing
from libs.bus.quick_events import quick
from libs.contracts import topics
from libs.contracts.endings import whole_ending
from libs.contracts.events import (
    Leg,
    MessageEvent,
    Priority,
    SmsDeferred,
    SmsDispatch,
    SmsRequested,
    SmsReturned,
    event_id,
    person_key,
)
from services.resolver.deciding import Decision, Deferred, Dispatch, Ended

SOURCE = "postrider/resolver"

_Event, _Dispatch = quick(MessageEvent[SmsDispatch]), quick(SmsDispatch)

Cause: TypeAlias = MessageEvent[SmsRequested] | MessageEvent[SmsReturned]


def publication(cause: Cause, decision: Decision) -> Outgoing:
    """What is published of a decision, and where."""
    if isinstance(decision, Dispatch):
        return _dispatch(cause, decision)
    if isinstance(decision, Deferred):
        return _deferral(cause, decision)
    return _ending(cause, decision)


def _ending(cause: Cause, decision: Ended) -> Outgoing:
    message = cause.data.message
    event = whole_ending(
        cause.subject,
        message.tenant,
        message.recipient,
        cause.data.leg,
        decision.status,
        decision.reason,
        at=decision.decided_at,
        source=SOURCE,
        traceparent=cause.traceparent,
    )
    return Outgoing(topics.STATUS.name, message_key(cause.subject), encode(event))


def _dispatch(cause: Cause, decision: Dispatch) -> Outgoing:
    message, leg = cause.data.message, cause.data.leg
    event = _Event(
        id=event_id(SmsDispatch.TYPE, cause.subject, leg.cycle, leg.leg),
        type=SmsDispatch.TYPE,
        source=SOURCE,
        time=decision.decided_at,
        subject=cause.subject,
        data=_Dispatch(
            message=message,
            leg=leg,
            gateway=decision.gateway,
            phone=decision.phone,
            person_name=decision.person_name,
            source_address=decision.source_address,
            encoding=decision.encoding,
            segments=decision.segments,
            decided_at=decision.decided_at,
        ),
        traceparent=cause.traceparent,
    )
    topic = _dispatch_topic(decision.gateway, message.priority)
    return Outgoing(topic, person_key(message.tenant, message.recipient), encode(event))


def _deferral(cause: Cause, decision: Deferred) -> Outgoing:
    """The next leg begins at the time that the message names: that is its `leg_at` already now."""
    message, leg = cause.data.message, cause.data.leg
    due_at = message.scheduled_at
    if due_at is None:
        raise ValueError("only a message that names its time is deferred")
    event = MessageEvent(
        id=event_id(SmsDeferred.TYPE, cause.subject, leg.cycle, leg.leg + 1),
        type=SmsDeferred.TYPE,
        source=SOURCE,
        time=decision.decided_at,
        subject=cause.subject,
        data=SmsDeferred(
            message=message,
            leg=Leg(leg.cycle, leg.leg + 1, due_at),
            due_at=due_at,
            deferred_at=decision.decided_at,
        ),
        traceparent=cause.traceparent,
    )
    return Outgoing(
        topics.deferred(message.priority).name, person_key(message.tenant, message.recipient), encode(event)
    )


@cache
def _dispatch_topic(gateway: str, priority: Priority) -> str:
    return topics.dispatch(gateway, priority).name
