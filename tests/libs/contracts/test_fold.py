"""The fold of a message's events, against the sentences of the architecture's "Coordinates and order"."""

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.contracts.asked import CANCEL_TOO_LATE
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

CASES: list[tuple[str, list[AnyMessageEvent], Status, Place]] = [
    ("accepted is the beginning", [requested()], S.ACCEPTED, (1, 1)),
    ("a dispatch reads as queued", [requested(), dispatch()], S.QUEUED, (1, 1)),
    ("a part that is taken is submitted", [requested(), dispatch(), taken(S.SUBMITTED)], S.SUBMITTED, (1, 1)),
    (
        "within a leg the greater rank wins, whatever the clock says",
        [requested(), dispatch(), taken(S.DELIVERED, after=3), taken(S.BUFFERED, after=9)],
        S.DELIVERED,
        (1, 1),
    ),
    (
        "the greater leg wins, whatever the rank",
        [requested(), dispatch(), status(S.REFUSED), returned(LEG2, (1, 1))],
        S.ACCEPTED,
        LEG2,
    ),
    (
        "the greater cycle wins, whatever the leg",
        [requested(), dispatch(), returned(LEG2), whole(S.FAILED, LEG2), requested(CYCLE2)],
        S.ACCEPTED,
        CYCLE2,
    ),
    (
        "delivered wins over a later leg",
        [requested(), dispatch(), taken(S.DELIVERED), returned(LEG2), dispatch(LEG2)],
        S.DELIVERED,
        (1, 1),
    ),
    (
        "delivered wins over a later cycle's bad end",
        [requested(), dispatch(), taken(S.DELIVERED), requested(CYCLE2), whole(S.REJECTED, CYCLE2)],
        S.DELIVERED,
        (1, 1),
    ),
    (
        "delivered wins over any other end of its own leg",
        [requested(), dispatch(), taken(S.DELIVERED), whole(S.CANCELLED), whole(S.EXPIRED)],
        S.DELIVERED,
        (1, 1),
    ),
    (
        "a bad end of a later leg does not show while an earlier one is accepted by the carrier",
        [dispatch(), taken(S.SUBMITTED), returned(LEG2), whole(S.REJECTED, LEG2)],
        S.SUBMITTED,
        (1, 1),
    ),
    (
        "nor while an earlier one is in doubt",
        [dispatch(), status(S.IN_DOUBT), requested(CYCLE2), whole(S.EXPIRED, CYCLE2)],
        S.IN_DOUBT,
        (1, 1),
    ),
    (
        "nor while an earlier one is unknown",
        [dispatch(), taken(S.SUBMITTED), whole(S.UNKNOWN, after=9), returned(LEG2), whole(S.FAILED, LEG2)],
        S.UNKNOWN,
        (1, 1),
    ),
    (
        "it shows once the earlier one is proven not accepted",
        [dispatch(), status(S.IN_DOUBT), returned(LEG2, (1, 1)), whole(S.REJECTED, LEG2)],
        S.REJECTED,
        LEG2,
    ),
    (
        "it shows once the earlier one has ended badly too",
        [dispatch(), taken(S.SUBMITTED), taken(S.FAILED, after=8), requested(CYCLE2), whole(S.EXPIRED, CYCLE2)],
        S.EXPIRED,
        CYCLE2,
    ),
    (
        "a refusal that is followed by another try reads as queued",
        [requested(), dispatch(), status(S.REFUSED)],
        S.QUEUED,
        (1, 1),
    ),
    (
        "parts are submitted only when all are accepted",
        [dispatch(segments=2), taken(S.SUBMITTED, parts=2)],
        S.QUEUED,
        (1, 1),
    ),
    (
        "and then they are",
        [dispatch(segments=2), taken(S.SUBMITTED, parts=2), taken(S.SUBMITTED, part=2, parts=2)],
        S.SUBMITTED,
        (1, 1),
    ),
    (
        "in doubt as long as one part is",
        [dispatch(segments=2), taken(S.DELIVERED, parts=2), status(S.IN_DOUBT, part=2, parts=2)],
        S.IN_DOUBT,
        (1, 1),
    ),
    (
        "also while another part was not tried yet",
        [dispatch(segments=2), status(S.IN_DOUBT, part=2, parts=2)],
        S.IN_DOUBT,
        (1, 1),
    ),
    (
        "delivered only when every part is",
        [dispatch(segments=2), taken(S.DELIVERED, parts=2), taken(S.SUBMITTED, part=2, parts=2)],
        S.SUBMITTED,
        (1, 1),
    ),
    (
        "and then it is",
        [dispatch(segments=2), taken(S.DELIVERED, parts=2), taken(S.DELIVERED, part=2, parts=2, after=7)],
        S.DELIVERED,
        (1, 1),
    ),
    (
        "failed as soon as one part ends otherwise",
        [dispatch(segments=3), taken(S.FAILED, part=2, parts=3), taken(S.DELIVERED, parts=3)],
        S.FAILED,
        (1, 1),
    ),
    (
        "acceptance by any try settles its part",
        [dispatch(), status(S.IN_DOUBT), taken(S.SUBMITTED, tried=2)],
        S.SUBMITTED,
        (1, 1),
    ),
    (
        "also by an earlier try than the one that was refused",
        [dispatch(), status(S.IN_DOUBT), status(S.REFUSED, tried=2), taken(S.SUBMITTED, after=9)],
        S.SUBMITTED,
        (1, 1),
    ),
    (
        "a doubt is not settled by the refusal of a later try",
        [dispatch(), status(S.IN_DOUBT), status(S.REFUSED, tried=2)],
        S.IN_DOUBT,
        (1, 1),
    ),
    ("what an operator says ends it", [dispatch(), status(S.IN_DOUBT), whole(S.FAILED)], S.FAILED, (1, 1)),
    (
        "unless it was delivered all the same",
        [dispatch(), status(S.IN_DOUBT), whole(S.FAILED), taken(S.DELIVERED, after=9)],
        S.DELIVERED,
        (1, 1),
    ),
    (
        "and never reported, it stays as they said",
        [dispatch(), status(S.IN_DOUBT), whole(S.DELIVERED), status(S.UNKNOWN, after=9)],
        S.DELIVERED,
        (1, 1),
    ),
    ("a deferral opens a leg that waits", [requested(), deferred()], S.SCHEDULED, LEG2),
    ("due, it waits until it is decided anew", [requested(), deferred(), returned(LEG2)], S.SCHEDULED, LEG2),
    ("then it goes on", [requested(), deferred(), returned(LEG2), dispatch(LEG2)], S.QUEUED, LEG2),
    (
        "a refusal for now waits for the next leg",
        [dispatch(), status(S.IN_DOUBT), deferred(LEG2, (1, 1), why="busy")],
        S.SCHEDULED,
        LEG2,
    ),
    ("a waiting message can be cancelled", [requested(), deferred(), whole(S.CANCELLED, LEG2)], S.CANCELLED, LEG2),
    ("asking to cancel is no end", [requested(), dispatch(), command()], S.QUEUED, (1, 1)),
    ("a command may be the first that is heard of", [command()], S.ACCEPTED, (1, 1)),
    (
        "events may come before those that they follow from",
        [taken(S.SUBMITTED, part=2, parts=3)],
        S.QUEUED,
        (1, 1),
    ),
]


@pytest.mark.parametrize(("events", "expected", "place"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_shown(events: list[AnyMessageEvent], expected: Status, place: Place) -> None:
    seen = shown(*events)
    assert (seen.status, (seen.cycle, seen.leg)) == (expected, place)


@pytest.mark.parametrize(
    ("events", "double"),
    [
        ([status(S.IN_DOUBT)], False),
        ([status(S.IN_DOUBT), taken(S.SUBMITTED, tried=2)], True),
        ([status(S.IN_DOUBT), status(S.IN_DOUBT, tried=2)], True),
        ([status(S.IN_DOUBT), status(S.SUBMITTED, tried=2)], True),  # accepted, and given no id
        ([status(S.IN_DOUBT), status(S.REFUSED, after=5), taken(S.SUBMITTED, tried=2)], False),
        ([status(S.REFUSED), taken(S.SUBMITTED, tried=2)], False),
        ([status(S.IN_DOUBT), returned(LEG2, (1, 1)), taken(S.SUBMITTED, LEG2)], False),
        ([taken(S.SUBMITTED), requested(CYCLE2), taken(S.SUBMITTED, CYCLE2)], True),
        ([status(S.IN_DOUBT), whole(S.FAILED), requested(CYCLE2), taken(S.SUBMITTED, CYCLE2)], True),
        ([taken(S.SUBMITTED, parts=2), taken(S.SUBMITTED, part=2, parts=2)], False),
        ([taken(S.SUBMITTED), taken(S.DELIVERED, after=8)], False),
        ([status(S.IN_DOUBT), status(S.FAILED, after=9), taken(S.SUBMITTED, tried=2)], False),
    ],
)
def test_two_attempts_of_one_part_neither_proven_unaccepted_may_be_a_double(
    events: list[AnyMessageEvent], double: bool
) -> None:
    assert shown(dispatch(), *events).possible_double is double


def test_times_and_reason_are_those_of_the_cause() -> None:
    events = [requested(), dispatch(segments=2, gateway="north")]
    events += [taken(S.SUBMITTED, part=n, parts=2, after=2 + n) for n in (1, 2)]
    seen = shown(*events)
    start = leg_of((1, 1)).leg_at
    assert seen.observed_at == start + timedelta(seconds=4)
    assert seen.submitted_at == start + timedelta(seconds=3)
    assert (seen.delivered_at, seen.gateway, seen.encoding, seen.segments) == (None, "north", Encoding.GSM7, 2)
    ended = shown(*events, *(taken(S.DELIVERED, part=n, parts=2, after=10 + n) for n in (1, 2)))
    assert ended.delivered_at == ended.observed_at == start + timedelta(seconds=12)
    assert [(p.part, p.status, p.provider_id, p.try_number) for p in ended.parts] == [
        (1, S.DELIVERED, "id-(1, 1)-1-1", 1),
        (2, S.DELIVERED, "id-(1, 1)-2-1", 1),
    ]
    unnamed = shown(dispatch(), status(S.SUBMITTED, after=7))
    assert (unnamed.submitted_at, unnamed.parts[0].provider_id) == (start + timedelta(seconds=7), None)
    assert shown(requested(), whole(S.REJECTED, why="no-number")).reason == Reason("no-number", "no-number")


def test_what_waits_says_until_when_and_why() -> None:
    due = leg_of(LEG2).leg_at
    waiting = shown(requested(), deferred(why="busy"))
    assert (waiting.scheduled_at, waiting.reason) == (due, Reason("busy", "busy"))
    assert waiting.observed_at == due - timedelta(seconds=9)
    assert shown(requested(), deferred(), command()).reason is None
    assert shown(requested(), deferred(), returned(LEG2), dispatch(LEG2)).scheduled_at is None


def test_a_deferral_and_the_return_that_follows_it_prove_the_same_attempt_refused() -> None:
    seen = shown(
        dispatch(), status(S.IN_DOUBT), deferred(LEG2, (1, 1)), returned(LEG2, (1, 1)), taken(S.SUBMITTED, LEG2)
    )
    assert (seen.status, seen.possible_double) == (S.SUBMITTED, False)


@pytest.mark.parametrize("what", [S.SUBMITTED, S.BUFFERED, S.DELIVERED])
def test_a_cancellation_that_comes_too_late_is_a_reason_and_no_error(what: Status) -> None:
    late = shown(requested(), dispatch(), unexplained(what), command(after=7), command(after=6))
    assert (late.status, late.reason, late.cancel_asked_at) == (what, CANCEL_TOO_LATE, at(66))
    for other in (command(cycle=2), command(CommandKind.RETURN)):
        seen = shown(requested(), dispatch(), unexplained(what), other)
        assert (seen.reason, seen.cancel_asked_at) == (None, None)


def test_another_reason_is_not_covered_by_it() -> None:
    assert shown(dispatch(), taken(S.BUFFERED), command()).reason == Reason("why", "why")
    assert shown(requested(), dispatch(), whole(S.CANCELLED, why="asked"), command()).reason == Reason("asked", "asked")


def test_of_two_that_are_equal_in_rank_and_time_the_event_id_decides() -> None:
    for make in (whole, status):
        one, two = make(S.FAILED, why="one"), make(S.FAILED, why="two")
        greater = max(one, two, key=lambda event: event.id)
        assert isinstance(greater.data, SmsStatus)
        assert shown(dispatch(), one, two).reason == greater.data.reason


def test_what_was_asked_for_is_that_of_the_first_cycle_and_how_long_it_may_be_sent_that_of_the_newest() -> None:
    cycles = [requested(by="first"), requested(CYCLE2, by="second"), requested((3, 1), by="third")]
    for order in itertools.permutations([*cycles, dispatch()]):
        request = folded(order).request
        assert request is not None
        assert (request.requested_by, request.number, request.tags) == ("first", 5, ("a",))
        assert request.valid_until == VALID_UNTIL[3]


# Any history that the services can write: decisions once per leg, an attempt taken or refused but not both.

_AFTER_TAKEN = [S.SUBMITTED, S.BUFFERED, S.UNKNOWN, S.FAILED, S.EXPIRED, S.DELIVERED]
_SECONDS = st.integers(2, 6)  # few, so that times meet and the event id must decide


@st.composite
def histories(draw: st.DrawFn) -> list[AnyMessageEvent]:
    parts = draw(st.integers(1, 3))
    ways = [[(1, 1)], [(1, 1), (1, 2)], [(1, 1), (1, 2), (2, 1)], [(1, 1), (2, 1), (2, 2)], [(1, 1), (2, 1), (3, 1)]]
    places = draw(st.sampled_from([*ways, [(2, 1), (3, 1)]]))  # the last: of the first cycle nothing has come yet
    events: list[AnyMessageEvent] = []
    for place in places:
        events += [requested(place)] if place[1] == 1 else draw(_reopened(place, parts))
        events += [
            command(kind, place[0], draw(_SECONDS))
            for kind in draw(st.lists(st.sampled_from([*CommandKind]), max_size=2))
        ]
        if draw(st.booleans()):
            events.append(dispatch(place, parts, draw(st.sampled_from(["north", "south"]))))
        events += [
            whole(what, place, draw(_SECONDS))
            for what in draw(
                st.lists(st.sampled_from([S.SCHEDULED, S.UNKNOWN, S.REJECTED, S.CANCELLED, S.EXPIRED]), max_size=1)
            )
        ]
        for part, tried in itertools.product(range(1, parts + 1), (1, 2)):
            events += draw(_attempt(place, part, parts, tried))
    return draw(st.permutations(events))


@st.composite
def _reopened(draw: st.DrawFn, place: Place, parts: int) -> list[AnyMessageEvent]:
    """A leg after the first: sent back, or deferred and perhaps due by now."""
    refused = draw(_refused_attempt(parts))
    match draw(st.sampled_from(["returned", "waiting", "due"])):
        case "returned":
            return [returned(place, refused)]
        case "waiting":
            return [deferred(place, refused, -draw(_SECONDS), draw(st.sampled_from([None, "busy"])))]
        case _:
            return [deferred(place, refused, -draw(_SECONDS)), returned(place, refused)]


def _refused_attempt(parts: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.one_of(st.just((0, 0)), st.tuples(st.integers(1, parts), st.integers(1, 2)))


@st.composite
def _attempt(draw: st.DrawFn, place: Place, part: int, parts: int, tried: int) -> list[AnyMessageEvent]:
    """What may be said of one attempt: doubted or not, then taken (and what followed) or refused, or nothing more."""
    at_part = {"part": part, "parts": parts, "tried": tried}
    events: list[AnyMessageEvent] = []
    if draw(st.booleans()):
        events.append(status(S.IN_DOUBT, place, **at_part, after=draw(_SECONDS)))
    match draw(st.sampled_from(["nothing", "taken", "refused", "failed"])):
        case "taken":
            for what in draw(st.lists(st.sampled_from(_AFTER_TAKEN), min_size=1, max_size=3, unique=True)):
                names = ["a", "A", None] if what is S.SUBMITTED else ["a", "A"]
                events.append(
                    status(what, place, **at_part, provider_id=draw(st.sampled_from(names)), after=draw(_SECONDS))
                )
        case "refused":
            events.append(status(S.REFUSED, place, **at_part, after=draw(_SECONDS)))
        case "failed":
            events.append(status(S.FAILED, place, **at_part, after=draw(_SECONDS)))
        case _:
            pass
    return events


@settings(max_examples=300, deadline=None)
@given(history=histories(), seed=st.integers(0, 2**32))
def test_any_order_and_any_repetition_give_the_same(history: list[AnyMessageEvent], seed: int) -> None:
    expected = folded(history)
    chance = random.Random(seed)
    for _ in range(3):
        again = history + chance.choices(history, k=len(history))
        chance.shuffle(again)
        other = folded(again)
        assert other == expected
        assert view(other) == view(expected)


@settings(max_examples=300, deadline=None)
@given(history=histories())
def test_every_beginning_of_a_history_can_be_shown_and_delivered_stays(history: Sequence[AnyMessageEvent]) -> None:
    fold = new_fold(history[0])
    delivered = False
    cycles: set[int] = set()
    for event in history:
        apply(fold, event)
        if isinstance(event.data, SmsRequested):
            cycles.add(event.data.leg.cycle)
        assert (fold.request and fold.request.valid_until) == (VALID_UNTIL[max(cycles)] if cycles else None)
        now = view(fold)
        assert now.status is not S.REFUSED
        assert not delivered or now.status is S.DELIVERED
        assert (now.delivered_at is not None) == (now.status is S.DELIVERED)
        delivered = now.status is S.DELIVERED
