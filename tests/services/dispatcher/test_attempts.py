"""The rules of a leg, case by case."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from msgspec import structs

from services.dispatcher.attempts import (
    Attempt,
    LegState,
    Outcome,
    attempt_reference,
    deferral,
    due_at,
    is_concluded,
    is_first_sending,
    late_outcome,
    may_come_back,
    next_tries,
    refused_for_now,
)
from tests.services.dispatcher.builders import dispatch_event

ONE, TWO = "hello", "x" * 200
ME = uuid4()

O = Outcome  # noqa: E741 - the table below is read by its letters


def leg(text: str, *attempts: tuple[int, int, Outcome | None]) -> LegState:
    made = LegState(dispatch_event(text))
    made.attempts = [Attempt(part, try_number, ME, outcome) for part, try_number, outcome in attempts]
    return made


@pytest.mark.parametrize(
    ("state", "tries", "concluded"),
    [
        (leg(ONE), [(1, 1)], False),
        (leg(ONE, (1, 1, None)), [], False),
        (leg(ONE, (1, 1, O.ACCEPTED)), [], True),
        (leg(ONE, (1, 1, O.DOUBT)), [], True),
        (leg(ONE, (1, 1, O.DOUBT_BY_PEER)), [], True),
        (leg(ONE, (1, 1, O.TEMPORARY)), [(1, 2)], False),
        (leg(ONE, (1, 1, O.THROTTLED), (1, 2, O.NOT_SENT)), [(1, 3)], False),
        (leg(ONE, (1, 1, O.FAILED)), [], True),
        (leg(ONE, (1, 1, O.CANCELLED)), [], True),
        (leg(ONE, (1, 1, O.EXPIRED)), [], True),
        (leg(ONE, (1, 1, O.LATE_RETURNED)), [], True),
        (leg(TWO), [(1, 1), (2, 1)], False),
        (leg(TWO, (1, 1, O.ACCEPTED)), [(2, 1)], False),
        (leg(TWO, (1, 1, O.DOUBT)), [(2, 1)], False),
        (leg(TWO, (1, 1, O.ACCEPTED), (2, 1, O.TEMPORARY)), [(2, 2)], False),
        (leg(TWO, (1, 1, O.FAILED), (2, 1, None)), [], False),
        *((leg(TWO, (1, 1, closing)), [], True) for closing in map(O, "EFCRXnf")),
        (leg(TWO, (1, 1, O.LATE_FAILED), (2, 1, O.TEMPORARY)), [], True),
        (leg(TWO, (1, 1, O.ACCEPTED), (2, 1, O.DOUBT)), [], True),
    ],
)
def test_a_part_is_tried_again_only_after_proof_and_a_leg_ends_when_nothing_is_open(
    state: LegState, tries: list[tuple[int, int]], concluded: bool
):
    assert next_tries(state) == tries
    assert is_concluded(state) is concluded


@pytest.mark.parametrize(
    ("others", "answer", "may_open", "expected"),
    [
        ([], O.ACCEPTED, True, O.ACCEPTED),
        ([], O.TEMPORARY, True, O.LATE_RETURNED),
        ([], O.NOT_SENT, True, O.LATE_RETURNED),
        ([], O.FAILED, True, O.LATE_FAILED),
        ([], O.TEMPORARY, False, O.LATE_FAILED),
        ([O.ACCEPTED], O.TEMPORARY, True, O.LATE_FAILED),
        ([O.DOUBT], O.TEMPORARY, True, O.LATE_FAILED),
        ([O.DOUBT_BY_PEER], O.TEMPORARY, True, O.LATE_FAILED),
        ([None], O.TEMPORARY, True, O.LATE_FAILED),
        ([O.FAILED], O.TEMPORARY, True, O.LATE_FAILED),
        ([O.LATE_RETURNED], O.TEMPORARY, True, O.LATE_FAILED),
        ([O.TEMPORARY], O.TEMPORARY, True, O.LATE_RETURNED),
    ],
)
def test_late_proof_opens_a_leg_only_if_nothing_else_may_have_been_accepted(
    others: list[Outcome | None], answer: Outcome, may_open: bool, expected: Outcome
):
    late = Attempt(1, 1, ME, O.DOUBT)
    attempts = [late, *(Attempt(part, 1, ME, outcome) for part, outcome in enumerate(others, start=2))]
    assert late_outcome(attempts, late, answer, may_open) is expected


@pytest.mark.parametrize(
    ("state", "deferred"),
    [
        (leg(TWO, (1, 1, O.TEMPORARY), (2, 1, O.TEMPORARY)), (2, 2)),
        (leg(TWO, (1, 1, O.TEMPORARY)), (1, 2)),
        (leg(TWO, (1, 1, O.TEMPORARY), (1, 2, O.THROTTLED), (2, 1, O.NOT_SENT)), (1, 3)),
        (leg(TWO, (2, 1, O.TEMPORARY), (1, 1, O.TEMPORARY)), (1, 2)),
        (leg(TWO), None),
        (leg(TWO, (1, 1, O.THROTTLED)), None),
        (leg(ONE, (1, 1, O.TEMPORARY)), None),
        *(
            (leg(TWO, (1, 1, O.TEMPORARY), (2, 1, other)), None)
            for other in (None, O.ACCEPTED, O.DOUBT, O.DOUBT_BY_PEER, O.DEFERRED, O.CANCELLED, O.FAILED)
        ),
    ],
)
def test_parts_are_deferred_together_while_none_may_have_been_accepted(
    state: LegState, deferred: tuple[int, int] | None
):
    now = datetime.now(UTC)
    told = [structs.replace(a, observed_at=now + timedelta(seconds=place)) for place, a in enumerate(state.attempts)]
    row = deferral(state, told, tries=2)
    assert (None if row is None else (row.part, row.try_number)) == deferred
    assert deferral(state, told, tries=1) is None
    assert row is None or row.observed_at == max(a.observed_at for a in told if a.outcome is O.TEMPORARY)


@pytest.mark.parametrize(("number", "seconds"), [(1, 30), (2, 60), (8, 3600)])
def test_a_refused_leg_waits_longer_each_time_up_to_an_hour_and_each_message_a_little_differently(
    number: int, seconds: float
):
    def waits(message_id: UUID) -> float:
        refused = LegState(dispatch_event(message_id=message_id, leg=number))
        return (due_at(refused, now) - now).total_seconds()

    now = datetime.now(UTC)
    ids = [UUID(int=n) for n in range(512)]  # every jitter that there is
    waiting = [waits(message_id) for message_id in ids]
    assert 0.75 * seconds <= min(waiting) < 0.76 * seconds
    assert 1.24 * seconds < max(waiting) <= 1.25 * seconds
    assert len(set(waiting)) == len(ids)
    assert [waits(message_id) for message_id in ids] == waiting


def refused_leg(number: int, *, cycle: int = 1, scheduled: bool = False, valid_seconds: float = 3600) -> LegState:
    event = dispatch_event(leg=number, valid_seconds=valid_seconds)
    message = event.data.message
    if scheduled:
        message = replace(message, scheduled_at=message.accepted_at)
    data = replace(event.data, message=message, leg=replace(event.data.leg, cycle=cycle))
    return LegState(replace(event, data=data))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (refused_leg(1), O.DEFERRED),
        (refused_leg(2), O.DEFERRED),
        (refused_leg(3), O.FAILED),
        (refused_leg(3, scheduled=True), O.DEFERRED),
        (refused_leg(4, scheduled=True), O.FAILED),
        (refused_leg(2, scheduled=True, cycle=2), O.DEFERRED),
        (refused_leg(3, scheduled=True, cycle=2), O.FAILED),
        (refused_leg(1, valid_seconds=40), O.DEFERRED),
        (refused_leg(1, valid_seconds=20), O.FAILED),
    ],
)
def test_a_message_is_refused_for_now_in_so_many_legs_besides_one_that_only_waited(state: LegState, expected: Outcome):
    refused = Attempt(1, 1, ME)
    assert refused_for_now(state, refused, 3, state.event.data.message.accepted_at) is expected


@pytest.mark.parametrize(
    ("number", "answer", "tries", "seconds", "expected"),
    [
        (9, O.DEFERRED, 3, 0, True),
        (10, O.DEFERRED, 3, 0, False),
        (10, O.DEFERRED, 12, 0, True),
        (12, O.DEFERRED, 12, 0, False),
        (10, O.NOT_SENT, 3, 0, False),
        (10, O.THROTTLED, 3, 0, True),
        (50, O.THROTTLED, 3, 3599, True),
        (1, O.THROTTLED, 3, 3600, False),
    ],
)
def test_late_proof_opens_so_many_legs_and_a_throttled_gateway_any_number_while_the_message_is_valid(
    number: int, answer: Outcome, tries: int, seconds: float, expected: bool
):
    state = refused_leg(number, valid_seconds=3600)
    at = state.event.data.message.accepted_at + timedelta(seconds=seconds)
    assert may_come_back(state, Attempt(1, 1, ME, answer, observed_at=at), tries) is expected


@pytest.mark.parametrize(
    ("number", "waited_for_its_time", "expected"),
    [(1, False, True), (2, False, False), (2, True, True), (3, True, False)],
)
def test_the_leg_after_one_that_only_waited_is_the_first_that_sends(
    number: int, waited_for_its_time: bool, expected: bool
):
    event = dispatch_event(leg=number)
    before = timedelta(0) if waited_for_its_time else timedelta(seconds=1)
    message = replace(event.data.message, scheduled_at=event.data.leg.leg_at - before)
    assert is_first_sending(LegState(replace(event, data=replace(event.data, message=message)))) is expected


@pytest.mark.parametrize(("before", "expected"), [(0, O.TEMPORARY), (1, O.TEMPORARY), (2, O.FAILED)])
def test_a_part_of_several_is_refused_for_now_in_so_many_tries(before: int, expected: Outcome):
    state = leg(TWO, (2, 1, O.TEMPORARY), *((1, n, O.TEMPORARY) for n in range(1, before + 1)))
    assert refused_for_now(state, Attempt(1, before + 1, ME), 3, datetime.now(UTC)) is expected


def test_attempts_of_a_message_that_may_be_open_together_have_references_of_their_own():
    message_id = uuid4()
    legs = [LegState(dispatch_event(TWO, message_id=message_id, leg=number)) for number in (1, 2, 3)]
    tries = [(of, part, try_number) for of in legs for part in (1, 2) for try_number in (1, 2, 3)]
    references = [attempt_reference(*each) for each in tries]
    assert len(set(references)) == len(tries)
    assert all(0 <= reference <= 0xFFFF for reference in references)
