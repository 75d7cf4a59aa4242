"""The fold of any history that the services can write: decisions once per leg, an attempt taken or refused but not both."""

import itertools
import random
from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from libs.contracts.events import (
    CommandKind,
    SmsRequested,
)
from libs.contracts.fold import AnyMessageEvent, apply, new_fold, view
from libs.contracts.statuses import Status
from libs.contracts.without_receipt import NOT_ASKED
from tests.libs.contracts.fold_examples import (
    VALID_UNTIL,
    Place,
    S,
    command,
    deferred,
    dispatch,
    folded,
    requested,
    returned,
    status,
    whole,
)

_AFTER_TAKEN = [S.SUBMITTED, S.BUFFERED, S.UNKNOWN, S.FAILED, S.EXPIRED, S.DELIVERED]
_REPORTING: dict[str, Callable[[int, int], bool]] = {
    "each": lambda part, parts: True,
    "first": lambda part, parts: part == 1,
    "last": lambda part, parts: part == parts,
    "none": lambda part, parts: False,
}
"""By what a gateway is told: of which parts receipts come."""
_SECONDS = st.integers(2, 6)  # few, so that times meet and the event id must decide


@st.composite
def histories(draw: st.DrawFn) -> list[AnyMessageEvent]:
    parts = draw(st.integers(1, 3))
    reports = _REPORTING[draw(st.sampled_from([*_REPORTING]))]
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
            events += draw(_attempt(place, part, parts, tried, reports(part, parts)))
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
def _attempt(draw: st.DrawFn, place: Place, part: int, parts: int, tried: int, reported: bool) -> list[AnyMessageEvent]:
    """What may be said of one attempt: doubted or not, then taken (and what followed) or refused, or nothing more."""
    at_part = {"part": part, "parts": parts, "tried": tried}
    events: list[AnyMessageEvent] = []
    if draw(st.booleans()):
        events.append(status(S.IN_DOUBT, place, **at_part, after=draw(_SECONDS)))
    match draw(st.sampled_from(["nothing", "taken", "refused", "failed"])):
        case "taken" if not reported:
            name = draw(st.sampled_from(["a", "A", None]))
            after = draw(_SECONDS)
            events.append(status(S.SUBMITTED, place, **at_part, provider_id=name, after=after, why=NOT_ASKED.code))
            # From one that did not know that its doubt had ended, or a carrier that reports unasked.
            for what, known_as in draw(st.sampled_from([[], [(S.UNKNOWN, None)], [(S.DELIVERED, "a")]])):
                events.append(status(what, place, **at_part, provider_id=known_as, after=9))
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


_PART_STORIES: dict[str, list[Status]] = {
    "nothing": [],
    "doubted": [S.IN_DOUBT],
    "refused": [S.IN_DOUBT, S.FAILED],
    "accepted": [S.SUBMITTED],
    "delivered": [S.SUBMITTED, S.DELIVERED],
    "undelivered": [S.SUBMITTED, S.BUFFERED, S.FAILED],
}


@settings(max_examples=300, deadline=None)
@given(data=st.data(), told=st.sampled_from([*_REPORTING]), parts=st.integers(1, 4))
def test_parts_are_joined_by_those_that_have_receipts(data: st.DataObject, told: str, parts: int) -> None:
    stories: dict[int, str] = {}
    events = [requested(), dispatch((1, 1), parts)]
    for part in range(1, parts + 1):
        reported = _REPORTING[told](part, parts)
        known = [*_PART_STORIES] if reported else ["nothing", "doubted", "refused", "accepted"]
        stories[part] = data.draw(st.sampled_from(known))
        for what in _PART_STORIES[stories[part]]:
            why = NOT_ASKED.code if what is S.SUBMITTED and not reported else "why"
            events.append(status(what, part=part, parts=parts, after=data.draw(_SECONDS), why=why))
    seen = view(folded(data.draw(st.permutations(events)))).status
    reporting = [story for part, story in stories.items() if _REPORTING[told](part, parts)]
    if {"refused", "undelivered"} & {*stories.values()}:
        assert seen is S.FAILED
    elif "doubted" in stories.values():
        assert seen is S.IN_DOUBT
    elif "nothing" in stories.values():
        assert seen is S.QUEUED
    else:
        assert seen is (S.DELIVERED if reporting and {*reporting} == {"delivered"} else S.SUBMITTED)
