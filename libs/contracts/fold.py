"""The fold: one pure function from a message's events to what is shown of it.

Folding the same events in any order, any number of times, gives the same result: every value kept is a maximum, a minimum or a
logical or over the events (docs/architecture.md). It looks at no number and no text, so a journal without them rebuilds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from libs.contracts.best import Best
from libs.contracts.events import (
    Encoding,
    MessageEvent,
    PersonKind,
    Priority,
    SmsCommand,
    SmsDeferred,
    SmsDispatch,
    SmsRequested,
    SmsReturned,
    SmsStatus,
)
from libs.contracts.folded_commands import CANCEL_TOO_LATE, FoldedCommand, cancel_asked_at, fold_command
from libs.contracts.message_view import MessageView, PartView
from libs.contracts.statuses import NEGATIVE_FINALS, RANK, UNSETTLED, Status
from libs.contracts.without_receipt import is_without_receipt


@dataclass(slots=True)
class Attempt:
    """One try of one part. `accepted`: the carrier gave an id; `doubted`: it may have taken it; `refused`: proof that it did not."""

    part: int
    try_number: int
    best: Best
    accepted: bool = False
    doubted: bool = False
    refused: bool = False
    submitted_at: datetime | None = None
    provider_id: str | None = None

    @property
    def maybe_accepted(self) -> bool:
        return self.accepted or (self.doubted and not self.refused)


@dataclass(slots=True)
class LegFold:
    """One leg: `whole` is the best event about the message itself, `attempts` hold those about its parts.

    `due_at`: when it begins, if the message was deferred to it.
    """

    cycle: int
    leg: int
    parts: int
    gateway: str | None
    encoding: Encoding | None
    whole: Best | None
    attempts: list[Attempt]
    due_at: datetime | None = None


class Request(NamedTuple):
    """What was asked for at first, in `cycle`; but `valid_until` is that of the newest cycle, `valid_cycle`."""

    number: int
    priority: Priority
    sender_id: str | None
    tags: tuple[str, ...]
    accepted_at: datetime
    valid_until: datetime
    requested_by: str
    custom_data: dict[str, Any] | None
    batch_id: UUID | None = None
    cycle: int = 1
    valid_cycle: int = 1
    batch_size: int | None = None


@dataclass(slots=True)
class MessageFold:
    """All that is known of one message; grows with `apply`."""

    tenant: str
    kind: PersonKind
    person: str
    request: Request | None
    legs: list[LegFold]
    commands: list[FoldedCommand]


AnyMessageEvent = (
    MessageEvent[SmsRequested]
    | MessageEvent[SmsReturned]
    | MessageEvent[SmsDeferred]
    | MessageEvent[SmsDispatch]
    | MessageEvent[SmsStatus]
    | MessageEvent[SmsCommand]
)


def new_fold(event: AnyMessageEvent) -> MessageFold:
    """An empty fold for the message that the event is about."""
    data = event.data
    if isinstance(data, (SmsStatus, SmsCommand)):
        tenant, recipient = data.tenant, data.recipient
    else:
        tenant, recipient = data.message.tenant, data.message.recipient
    return MessageFold(tenant, recipient.kind, recipient.id, None, [], [])


def apply(fold: MessageFold, event: AnyMessageEvent) -> None:
    """Take one event into the fold. Applying it again, or in another order, changes nothing."""
    data = event.data
    if isinstance(data, SmsStatus):
        _apply_status(fold, event.id, data)
        return
    if isinstance(data, SmsCommand):
        fold_command(fold.commands, data)
        return
    leg = _leg(fold, data.leg.cycle, data.leg.leg)
    if isinstance(data, SmsDispatch):
        leg.parts = max(leg.parts, data.segments)
        leg.gateway = data.gateway
        leg.encoding = data.encoding
        _keep_best(leg, Best(Status.QUEUED, data.decided_at, event.id, None))
    elif isinstance(data, SmsRequested):
        _take_request(fold, data)
        _keep_best(leg, Best(Status.ACCEPTED, data.leg.leg_at, event.id, None))
    else:
        _reopen(fold, leg, event.id, data)


def _take_request(fold: MessageFold, data: SmsRequested) -> None:
    known, cycle = fold.request, data.leg.cycle
    if known is None or cycle < known.cycle:
        m = data.message
        custom = dict(data.custom_data) if data.custom_data is not None else None
        fold.request = Request(
            m.number,
            m.priority,
            m.sender_id,
            m.tags,
            m.accepted_at,
            m.valid_until if known is None else known.valid_until,
            data.requested_by,
            custom,
            m.batch_id,
            cycle,
            cycle if known is None else known.valid_cycle,
            m.batch_size,
        )
    elif cycle > known.valid_cycle:
        fold.request = known._replace(valid_until=data.message.valid_until, valid_cycle=cycle)


def _reopen(fold: MessageFold, leg: LegFold, event_id: str, data: SmsReturned | SmsDeferred) -> None:
    """A further leg, opened now or to begin later, and what that proves of the leg before."""
    if isinstance(data, SmsDeferred):
        leg.due_at = data.due_at if leg.due_at is None else max(leg.due_at, data.due_at)
        opening = Best(Status.SCHEDULED, data.deferred_at, event_id, data.reason)
    else:
        opening = Best(Status.ACCEPTED, data.leg.leg_at, event_id, data.reason)
    _keep_best(leg, opening)
    if data.refused_part:
        before = _leg(fold, data.leg.cycle, data.leg.leg - 1)
        proof = Best(Status.REFUSED, opening.observed_at, event_id, data.reason)
        _attempt(before, data.refused_part, data.refused_try, proof).refused = True


def _apply_status(fold: MessageFold, event_id: str, data: SmsStatus) -> None:
    leg = _leg(fold, data.leg.cycle, data.leg.leg)
    leg.parts = max(leg.parts, data.parts)
    best = Best(data.status, data.observed_at, event_id, data.reason)
    if data.part == 0:
        _keep_best(leg, best)
        return
    attempt = _attempt(leg, data.part, data.try_number, best)
    provider_id = data.provider_id
    if provider_id is not None or data.status is Status.SUBMITTED:
        attempt.accepted = True
        # Of two, which a carrier that writes its ids in two ways may give, always the same.
        if provider_id is not None and (attempt.provider_id is None or provider_id > attempt.provider_id):
            attempt.provider_id = provider_id
        if data.status is Status.SUBMITTED and (
            attempt.submitted_at is None or data.observed_at < attempt.submitted_at
        ):
            attempt.submitted_at = data.observed_at
    elif data.status is Status.IN_DOUBT:
        attempt.doubted = True
    elif data.status in NEGATIVE_FINALS or data.status is Status.REFUSED:
        attempt.refused = True


def _leg(fold: MessageFold, cycle: int, leg: int) -> LegFold:
    for known in fold.legs:
        if known.cycle == cycle and known.leg == leg:
            return known
    new = LegFold(cycle, leg, 0, None, None, None, [])
    fold.legs.append(new)
    if len(fold.legs) > 1:
        fold.legs.sort(key=lambda x: (x.cycle, x.leg))
    return new


def _keep_best(leg: LegFold, best: Best) -> None:
    if leg.whole is None or best.over(leg.whole):
        leg.whole = best


def _attempt(leg: LegFold, part: int, try_number: int, best: Best) -> Attempt:
    for known in leg.attempts:
        if known.part == part and known.try_number == try_number:
            if best.over_in_try(known.best):
                known.best = best
            return known
    new = Attempt(part, try_number, best)
    leg.attempts.append(new)
    if len(leg.attempts) > 1:
        leg.attempts.sort(key=lambda x: (x.part, x.try_number))
    return new


def shown(fold: MessageFold) -> tuple[LegFold, Best]:
    """The leg that is shown, and the event that speaks for it. Raises ValueError for a fold without events."""
    if len(fold.legs) == 1 and (only := _leg_status(fold.legs[0])) is not None:
        return fold.legs[0], only
    known = [(leg, best) for leg in fold.legs if (best := _leg_status(leg)) is not None]
    if not known and fold.commands:  # a command overtook what it is about, which must have been accepted
        first = min(fold.commands, key=lambda x: x.asked_at)
        return LegFold(first.cycle, 1, 0, None, None, None, []), Best(Status.ACCEPTED, first.asked_at, "", None)
    if not known:
        raise ValueError("nothing is folded yet")
    leg, best = next(((g, b) for g, b in known if b.status is Status.DELIVERED), known[-1])
    if best.status in NEGATIVE_FINALS and len(known) > 1:
        leg, best = next(((g, b) for g, b in reversed(known) if b.status in UNSETTLED), (leg, best))
    return leg, best


def view(fold: MessageFold) -> MessageView:
    """What is shown of a message: the rules of "Coordinates and order" over everything folded so far."""
    leg, best = shown(fold)
    cancel_asked = cancel_asked_at(fold.commands, leg.cycle)
    too_late = cancel_asked is not None and (best.status in UNSETTLED or best.status is Status.DELIVERED)
    unexplained = best.reason is None or is_without_receipt(best.reason)
    submitted = [a.submitted_at for g in fold.legs if g.cycle == leg.cycle for a in g.attempts if a.submitted_at]
    return MessageView(
        status=best.shown_status,
        observed_at=best.observed_at,
        cycle=leg.cycle,
        leg=leg.leg,
        reason=CANCEL_TOO_LATE if too_late and unexplained else best.reason,
        gateway=leg.gateway,
        encoding=leg.encoding,
        segments=leg.parts,
        submitted_at=min(submitted, default=None),
        delivered_at=best.observed_at if best.status is Status.DELIVERED else None,
        possible_double=_possible_double(fold),
        parts=tuple(PartView(a.part, a.best.status, a.provider_id, a.try_number) for a in _speakers(leg)),
        scheduled_at=leg.due_at if best.status is Status.SCHEDULED else None,
        cancel_asked_at=cancel_asked,
    )


def _speakers(leg: LegFold) -> list[Attempt]:
    """The try that speaks for each part: an accepted one (the one that got furthest), else one in doubt, else the newest."""
    if len(leg.attempts) < 2:
        return leg.attempts
    chosen: dict[int, Attempt] = {}
    for a in leg.attempts:
        if a.part not in chosen or _precedence(a) > _precedence(chosen[a.part]):
            chosen[a.part] = a
    return [chosen[part] for part in sorted(chosen)]


def _precedence(a: Attempt) -> tuple[int, int, datetime, str]:
    certainty = 2 if a.accepted else 1 if a.maybe_accepted else 0
    newer = RANK[a.best.status] if a.accepted else a.try_number
    return (certainty, newer, a.best.observed_at, a.best.event_id)


def _leg_status(leg: LegFold) -> Best | None:
    if not leg.attempts:
        return leg.whole
    parts = [a.best for a in _speakers(leg)]
    joined = _join(parts, leg.parts or 1)
    if joined is None and leg.whole is None:  # the first news are of one part of several: it is on its way
        first = min(parts, key=lambda b: (b.observed_at, b.event_id))
        return Best(Status.QUEUED, first.observed_at, first.event_id, None)
    if joined is None:
        return leg.whole
    if leg.whole is None or joined.over(leg.whole):
        return joined
    return leg.whole


def _join(parts: list[Best], count: int) -> Best | None:
    """One status from those of the parts: a bad end at once, doubt as long as one is in doubt, else the part that lags most,
    of those that have receipts if there are any."""
    if len(parts) == count == 1:
        return parts[0]
    ended = [b for b in parts if b.status in NEGATIVE_FINALS]
    if ended:
        return max(ended, key=Best.order)
    doubted = [b for b in parts if b.status is Status.IN_DOUBT]
    if doubted:
        return max(doubted, key=Best.order)
    if len(parts) < count:
        return None
    telling = [b for b in parts if not is_without_receipt(b.reason)] or parts
    slowest = min(RANK[b.status] for b in telling)
    return max((b for b in telling if RANK[b.status] == slowest), key=Best.order)


def _possible_double(fold: MessageFold) -> bool:
    taken: set[int] = set()
    for leg in fold.legs:
        for a in leg.attempts:
            if a.maybe_accepted:
                if a.part in taken:
                    return True
                taken.add(a.part)
    return False
