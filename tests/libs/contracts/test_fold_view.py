"""What is shown of a message beside its status: times, reasons, and whether it may have been sent twice."""

import itertools
from datetime import timedelta

import pytest

from libs.contracts.events import CommandKind, Encoding, Reason, SmsStatus
from libs.contracts.fold import AnyMessageEvent
from libs.contracts.folded_commands import CANCEL_TOO_LATE
from libs.contracts.statuses import Status
from libs.contracts.without_receipt import NOT_ASKED
from tests.libs.contracts.fold_examples import (
    CYCLE2,
    LEG2,
    VALID_UNTIL,
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
        ([status(S.REFUSED), status(S.IN_DOUBT, tried=2), returned(LEG2, (1, 2)), taken(S.SUBMITTED, LEG2)], False),
        ([taken(S.SUBMITTED), requested(CYCLE2), taken(S.SUBMITTED, CYCLE2)], True),
        ([status(S.IN_DOUBT), whole(S.FAILED), requested(CYCLE2), taken(S.SUBMITTED, CYCLE2)], True),
        ([taken(S.SUBMITTED, parts=2), taken(S.SUBMITTED, part=2, parts=2)], False),
        ([taken(S.SUBMITTED), taken(S.DELIVERED, after=8)], False),
        ([status(S.IN_DOUBT), status(S.FAILED, after=9), taken(S.SUBMITTED, tried=2)], False),
        ([status(S.IN_DOUBT), status(S.REJECTED, after=9), taken(S.SUBMITTED, tried=2)], False),
        ([status(S.IN_DOUBT), status(S.EXPIRED, after=9), taken(S.SUBMITTED, tried=2)], False),
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
    assert shown(
        dispatch(), taken(S.SUBMITTED, after=3), taken(S.SUBMITTED, after=9)
    ).submitted_at == start + timedelta(seconds=3)
    twice = shown(dispatch(), taken(S.SUBMITTED, after=3), taken(S.SUBMITTED, tried=2, after=5))
    assert (twice.observed_at, twice.parts[0].try_number) == (start + timedelta(seconds=5), 2)
    doubted = [status(S.IN_DOUBT, part=n, parts=2, after=2 + n) for n in (1, 2)]
    assert shown(dispatch(segments=2), *doubted).observed_at == start + timedelta(seconds=4)
    overtaken = [taken(S.SUBMITTED, part=n, parts=3, after=2 + n) for n in (2, 3)]
    assert shown(*overtaken).observed_at == start + timedelta(seconds=4), "on its way since the first of them"
    unnamed = shown(dispatch(), status(S.SUBMITTED, after=7))
    assert (unnamed.submitted_at, unnamed.parts[0].provider_id) == (start + timedelta(seconds=7), None)
    assert shown(requested(), whole(S.REJECTED, why="no-number")).reason == Reason("no-number", "no-number")


def test_what_waits_says_until_when_and_why() -> None:
    due = leg_of(LEG2).leg_at
    waiting = shown(requested(), deferred(why="busy"))
    assert (waiting.scheduled_at, waiting.reason) == (due, Reason("busy", "busy"))
    assert waiting.observed_at == due - timedelta(seconds=9)
    assert shown(requested(), deferred(), command()).reason is None
    assert shown(requested(), dispatch(), returned(LEG2)).reason == Reason("why", "why")
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


def test_a_message_known_by_commands_alone_is_accepted_since_the_first_of_them() -> None:
    seen = shown(command(CommandKind.CANCEL, after=9), command(CommandKind.RETURN, after=6))
    assert (seen.status, seen.observed_at) == (S.ACCEPTED, at(66))


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
