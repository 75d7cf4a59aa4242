"""The fold of a message's events, against the sentences of the architecture's "Coordinates and order"."""

import itertools

import pytest

from libs.contracts.fold import AnyMessageEvent
from libs.contracts.statuses import Status
from tests.libs.contracts.fold_examples import (
    CYCLE2,
    LEG2,
    Place,
    S,
    command,
    deferred,
    dispatch,
    requested,
    returned,
    shown,
    status,
    taken,
    unasked,
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
        "of several earlier ones that the carrier may have the newest shows",
        [dispatch(), taken(S.SUBMITTED), status(S.IN_DOUBT, CYCLE2), whole(S.REJECTED, (3, 1))],
        S.IN_DOUBT,
        CYCLE2,
    ),
    (
        "delivered twice it is as it was at first",
        [dispatch(), taken(S.DELIVERED), requested(CYCLE2), taken(S.DELIVERED, CYCLE2)],
        S.DELIVERED,
        (1, 1),
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
        "of parts that end badly in several ways the greater rank wins",
        [dispatch(segments=2), status(S.EXPIRED, parts=2), status(S.FAILED, part=2, parts=2, after=9)],
        S.EXPIRED,
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
    (
        "of tries that the carrier did not take the newest speaks",
        [dispatch(), status(S.FAILED), status(S.REFUSED, tried=2)],
        S.QUEUED,
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


RISING = [
    *(S.SCHEDULED, S.QUEUED, S.IN_DOUBT, S.SUBMITTED, S.BUFFERED, S.UNKNOWN),
    *(S.FAILED, S.EXPIRED, S.REJECTED, S.CANCELLED, S.DELIVERED),
]


@pytest.mark.parametrize(("lesser", "greater"), list(itertools.pairwise(RISING)))
def test_of_two_of_a_leg_the_greater_shows_also_if_it_was_seen_before(lesser: Status, greater: Status) -> None:
    assert shown(whole(greater, after=2), whole(lesser, after=9)).status is greater
    if lesser is not S.SCHEDULED:  # which no attempt is
        assert shown(dispatch(), taken(greater, after=2), taken(lesser, after=9)).status is greater
