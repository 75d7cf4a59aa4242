"""The fold of a message's events, against the sentences of the architecture's "Coordinates and order"."""

import itertools
from datetime import timedelta

import pytest

from libs.contracts.events import (
    CommandKind,
    Encoding,
    Reason,
    SmsStatus,
)
from libs.contracts.fold import AnyMessageEvent
from libs.contracts.folded_commands import CANCEL_TOO_LATE
from libs.contracts.statuses import Status
from libs.contracts.without_receipt import NOT_ASKED
from tests.libs.contracts.fold_examples import (
    CYCLE2,
    LEG2,
    VALID_UNTIL,
    Place,
    S,
    at,
    command,
    deferred,
    dispatch,
    folded,
    leg_of,
    requested,
    returned,
    shown,
    status,
    taken,
    unasked,
    unexplained,
    whole,
)

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
        "a part that has receipts speaks for those that have none",
        [
            dispatch(segments=3),
            taken(S.DELIVERED, parts=3),
            unasked(part=2, parts=3),
            unasked(part=3, parts=3, after=9),
        ],
        S.DELIVERED,
        (1, 1),
    ),
    (
        "whatever it is that it says",
        [dispatch(segments=2), unasked(parts=2), taken(S.UNKNOWN, part=2, parts=2)],
        S.UNKNOWN,
        (1, 1),
    ),
    (
        "but only for those that are accepted",
        [dispatch(segments=3), taken(S.DELIVERED, parts=3), unasked(part=2, parts=3)],
        S.QUEUED,
        (1, 1),
    ),
    (
        "not for one that waits for its next try",
        [dispatch(segments=2), taken(S.DELIVERED, parts=2), status(S.REFUSED, part=2, parts=2)],
        S.QUEUED,
        (1, 1),
    ),
    (
        "nor for one in doubt",
        [dispatch(segments=2), taken(S.DELIVERED, parts=2), status(S.IN_DOUBT, part=2, parts=2)],
        S.IN_DOUBT,
        (1, 1),
    ),
    (
        "nor for one that was refused",
        [dispatch(segments=2), taken(S.DELIVERED, parts=2), status(S.FAILED, part=2, parts=2)],
        S.FAILED,
        (1, 1),
    ),
    (
        "without any receipts it stays submitted",
        [dispatch(segments=2), unasked(parts=2), unasked(part=2, parts=2)],
        S.SUBMITTED,
        (1, 1),
    ),
    (
        "also where a doubt was not known to have ended",
        [dispatch(), status(S.IN_DOUBT), unasked(), status(S.UNKNOWN, after=99)],
        S.SUBMITTED,
        (1, 1),
    ),
    (
        "but delivered it is, should that be said all the same",
        [dispatch(), status(S.IN_DOUBT), taken(S.DELIVERED), unasked(after=9)],
        S.DELIVERED,
        (1, 1),
    ),
    (
        "what an operator says ends it also without receipts",
        [dispatch(), status(S.IN_DOUBT), whole(S.FAILED), unasked(after=9)],
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


def test_what_is_sent_again_is_submitted_when_its_own_cycle_is() -> None:
    failed = [requested(), dispatch(), taken(S.SUBMITTED), taken(S.FAILED, after=5)]
    again = [*failed, requested(CYCLE2), dispatch(CYCLE2)]
    assert shown(*failed).submitted_at is not None
    assert shown(*again).submitted_at is None
    submitted_at = shown(*again, taken(S.SUBMITTED, CYCLE2)).submitted_at
    assert submitted_at is not None and submitted_at >= leg_of(CYCLE2).leg_at


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


def test_it_is_the_reason_also_of_what_stays_submitted() -> None:
    assert shown(dispatch(), unasked()).reason == Reason(NOT_ASKED.code, NOT_ASKED.code)
    assert shown(dispatch(), unasked(), command()).reason == CANCEL_TOO_LATE


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
