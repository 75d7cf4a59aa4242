"""Events of one message in few words, and what is shown of them."""

import itertools
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from libs.contracts.events import (
    CommandKind,
    Encoding,
    Leg,
    Message,
    MessageEvent,
    PersonKind,
    Reason,
    Recipient,
    SmsCommand,
    SmsDeferred,
    SmsDispatch,
    SmsRequested,
    SmsReturned,
    SmsStatus,
    event_id,
    type_name,
)
from libs.contracts.fold import AnyMessageEvent, MessageFold, apply, new_fold, view
from libs.contracts.message_view import MessageView
from libs.contracts.statuses import Status
from libs.contracts.without_receipt import NOT_ASKED

ID = UUID("019b30cb-7a50-7a55-9d3e-2b1f0c8e7a41")
T0 = datetime(2026, 1, 31, 8, tzinfo=UTC)
RECIPIENT = Recipient(PersonKind.CLIENT, "17")
S = Status

Place = tuple[int, int]
"""Cycle and leg."""


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def leg_of(place: Place) -> Leg:
    return Leg(*place, at(60 * place[0] + 10 * place[1]))


def envelope(
    data: SmsRequested | SmsReturned | SmsDeferred | SmsDispatch | SmsStatus, *cause: object
) -> AnyMessageEvent:
    kind = type_name(type(data))
    place = (data.leg.cycle, data.leg.leg)
    return MessageEvent(
        id=event_id(kind, ID, *place, *cause), type=kind, source="test", time=data.leg.leg_at, subject=ID, data=data
    )  # type: ignore[return-value]


MESSAGE = Message(
    tenant="demo", recipient=RECIPIENT, number=5, text="Hello", accepted_at=T0, valid_until=at(3600), tags=("a",)
)


VALID_UNTIL = {1: at(9000), 2: at(3600), 3: at(7200)}
"""By cycle: what was scheduled at first may well have been valid for longer than when it is sent again."""


def requested(place: Place = (1, 1), by: str = "key") -> AnyMessageEvent:
    message = replace(MESSAGE, valid_until=VALID_UNTIL[place[0]])
    return envelope(SmsRequested(message=message, leg=leg_of(place), requested_by=by))


def returned(place: Place, refused: tuple[int, int] = (0, 0)) -> AnyMessageEvent:
    reason = Reason("why", "why")
    data = SmsReturned(
        message=MESSAGE, leg=leg_of(place), reason=reason, refused_part=refused[0], refused_try=refused[1]
    )
    return envelope(data)


def deferred(
    place: Place = (1, 2), refused: tuple[int, int] = (0, 0), after: float = -9, why: str | None = None
) -> AnyMessageEvent:
    """By default said in the second after the leg before began."""
    leg = leg_of(place)
    data = SmsDeferred(
        message=MESSAGE,
        leg=leg,
        due_at=leg.leg_at,
        deferred_at=leg.leg_at + timedelta(seconds=after),
        reason=None if why is None else Reason(why, why),
        refused_part=refused[0],
        refused_try=refused[1],
    )
    return envelope(data)


def command(kind: CommandKind = CommandKind.CANCEL, cycle: int = 1, after: float = 5) -> AnyMessageEvent:
    asked_at = at(60 * cycle + after)
    data = SmsCommand(tenant="demo", recipient=RECIPIENT, kind=kind, cycle=cycle, asked_at=asked_at)
    identity = event_id(SmsCommand.TYPE, ID, kind, cycle, asked_at)
    return MessageEvent(id=identity, type=SmsCommand.TYPE, source="test", time=asked_at, subject=ID, data=data)


def dispatch(place: Place = (1, 1), segments: int = 1, gateway: str = "demo") -> AnyMessageEvent:
    leg = leg_of(place)
    data = SmsDispatch(
        message=MESSAGE,
        leg=leg,
        gateway=gateway,
        phone="+254700000017",
        person_name=None,
        source_address=None,
        encoding=Encoding.GSM7,
        segments=segments,
        decided_at=leg.leg_at + timedelta(seconds=1),
    )
    return envelope(data)


def status(
    what: Status,
    place: Place = (1, 1),
    *,
    part: int = 1,
    parts: int = 1,
    tried: int = 1,
    provider_id: str | None = None,
    after: float = 2,
    why: str = "why",
) -> AnyMessageEvent:
    leg = leg_of(place)
    data = SmsStatus(
        tenant="demo",
        recipient=RECIPIENT,
        leg=leg,
        part=part,
        parts=parts,
        try_number=tried if part else 0,
        status=what,
        observed_at=leg.leg_at + timedelta(seconds=after),
        gateway="demo",
        provider_id=provider_id,
        reason=Reason(why, why),
    )
    return envelope(data, part, tried, what, after, provider_id, why)


def taken(
    what: Status, place: Place = (1, 1), *, part: int = 1, parts: int = 1, tried: int = 1, after: float = 3
) -> AnyMessageEvent:
    """A status of an attempt that the carrier took."""
    identity = f"id-{place}-{part}-{tried}"
    return status(what, place, part=part, parts=parts, tried=tried, provider_id=identity, after=after)


def unasked(
    place: Place = (1, 1), *, part: int = 1, parts: int = 1, tried: int = 1, after: float = 3
) -> AnyMessageEvent:
    """An attempt that the carrier took and was asked for no receipt of."""
    identity = f"id-{place}-{part}-{tried}"
    at_part = {"part": part, "parts": parts, "tried": tried}
    return status(S.SUBMITTED, place, **at_part, provider_id=identity, after=after, why=NOT_ASKED.code)


def unexplained(what: Status) -> AnyMessageEvent:
    """The same of the only part, without a reason."""
    event = taken(what)
    assert isinstance(event.data, SmsStatus)
    return replace(event, data=replace(event.data, reason=None))  # type: ignore[type-var,arg-type]


def whole(what: Status, place: Place = (1, 1), after: float = 4, why: str = "why") -> AnyMessageEvent:
    """A status of the message itself."""
    return status(what, place, part=0, parts=0, after=after, why=why)


def folded(events: Iterable[AnyMessageEvent]) -> MessageFold:
    fold: MessageFold | None = None
    for event in events:
        fold = fold or new_fold(event)
        apply(fold, event)
    assert fold is not None
    return fold


def shown(*events: AnyMessageEvent) -> MessageView:
    """The view, after making sure that no order and no repetition changes it."""
    expected = view(folded(events))
    orders = itertools.islice(itertools.permutations(events), 720)
    for order in orders:
        assert view(folded([*order, *order[:2]])) == expected
    return expected


LEG2, CYCLE2 = (1, 2), (2, 1)
