"""What is answered about a message: the fold's view, the personal data and the journal, as the HTTP models say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from libs.contracts.events import (
    PersonKind,
    SmsCommand,
    SmsDeferred,
    SmsDispatch,
    SmsRequested,
    SmsReturned,
    SmsStatus,
)
from libs.contracts.fold import MessageFold, view
from libs.contracts.http.answers import Part, Sms, SmsWithHistory, Transition
from libs.contracts.message_ids import time_of
from libs.contracts.statuses import RANK, Status
from services.projection.journal import Line, event_of
from services.projection.rows import PersonalRow


def sms(message_id: UUID, fold: MessageFold, personal: Sequence[PersonalRow]) -> Sms:
    """The message as the outbox shows it. `personal` is in the order of legs."""
    shown = view(fold)
    request = fold.request
    text = next((row.text for row in personal if row.text is not None), None)
    # The number of the leg that is shown, or, before that is looked up, of the last leg before it.
    sent_to = next((row for row in reversed(personal) if row.phone and row[1:3] <= (shown.cycle, shown.leg)), None)
    return Sms(
        id=message_id,
        number=request and request.number,
        client_id=fold.person if fold.kind is PersonKind.CLIENT else None,
        staff_id=fold.person if fold.kind is PersonKind.STAFF else None,
        message=text,
        phone=sent_to and sent_to.phone,
        person_name=sent_to and sent_to.person_name,
        status=shown.status,
        status_at=shown.observed_at,
        reason=shown.reason,
        priority=request and request.priority,
        sender_id=request and request.sender_id,
        tags=request.tags if request else (),
        custom_data=request and request.custom_data,
        gateway=shown.gateway,
        encoding=shown.encoding,
        segments=shown.segments,
        accepted_at=time_of(message_id),
        valid_until=request and request.valid_until,
        submitted_at=shown.submitted_at,
        delivered_at=shown.delivered_at,
        cycle=shown.cycle,
        leg=shown.leg,
        possible_double=shown.possible_double,
        requested_by=request and request.requested_by,
        parts=tuple(
            # A refused try of a part is followed by another: meanwhile the part waits, as the message does.
            Part(
                part=part.part,
                status=Status.QUEUED if part.status is Status.REFUSED else part.status,
                provider_id=part.provider_id,
                try_number=part.try_number,
            )
            for part in shown.parts
        ),
        scheduled_at=shown.scheduled_at,
        cancel_asked_at=shown.cancel_asked_at,
        batch_id=request and request.batch_id,
    )


def with_history(message: Sms, journal: Iterable[Line], personal: Sequence[PersonalRow]) -> SmsWithHistory:
    """The message with every transition, oldest first; at one moment, in the order of a message's way."""
    told = [(line.topic, event_of(line).data) for line in journal]
    phones = {(row.cycle, row.leg): row.phone for row in personal}
    transitions = [transition(topic, data, phones) for topic, data in told if not isinstance(data, SmsCommand)]
    history = sorted(transitions, key=lambda t: (t.at, t.cycle, t.leg, RANK[t.status], t.part, t.try_number))
    first = min((d for _, d in told if isinstance(d, SmsRequested)), key=lambda d: d.leg.cycle, default=None)
    return SmsWithHistory(
        **dict(message), history=tuple(history), validity_seconds=None if first is None else validity_seconds(first)
    )


def validity_seconds(data: SmsRequested) -> int:
    """For how long it may be sent in the cycle that this asks for, from when that or the message's own time begins."""
    begins = data.leg.leg_at
    if data.message.scheduled_at is not None:
        begins = max(begins, data.message.scheduled_at)
    return round((data.message.valid_until - begins).total_seconds())


def transition(
    topic: str,
    data: SmsRequested | SmsReturned | SmsDeferred | SmsDispatch | SmsStatus,
    phones: Mapping[tuple[int, int], str | None],
) -> Transition:
    """What an event says of its message: a request or a return accepts it, a dispatch queues it, a status says itself.

    `phones` are the message's numbers by cycle and leg: each dispatch looked one up, and the journal doesn't repeat it.
    A command says nothing: asking changes nothing, what comes of it is an event of its own.
    """
    cycle, leg = data.leg.cycle, data.leg.leg
    if isinstance(data, SmsStatus):
        return Transition(
            status=data.status,
            at=data.observed_at,
            topic=topic,
            cycle=cycle,
            leg=leg,
            part=data.part,
            try_number=data.try_number,
            gateway=data.gateway,
            provider_id=data.provider_id,
            reason=data.reason,
            carrier_time=data.carrier_time,
        )
    if isinstance(data, SmsDispatch):
        return Transition(
            status=Status.QUEUED,
            at=data.decided_at,
            topic=topic,
            cycle=cycle,
            leg=leg,
            part=0,
            try_number=0,
            gateway=data.gateway,
            phone=phones.get((cycle, leg)),
            sender_id=data.source_address,
        )
    deferred = isinstance(data, SmsDeferred)
    return Transition(
        status=Status.SCHEDULED if deferred else Status.ACCEPTED,
        at=data.deferred_at if deferred else data.leg.leg_at,
        topic=topic,
        cycle=cycle,
        leg=leg,
        part=0,
        try_number=0,
        reason=getattr(data, "reason", None),
    )
