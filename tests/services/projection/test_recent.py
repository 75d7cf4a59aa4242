"""Which folds are remembered."""

from libs.contracts.statuses import Status
from services.projection.recent import RecentFolds
from services.projection.store import Key, Stored
from tests.services.projection.stories import TENANT


def keys(*numbers: int) -> list[Key]:
    return [(number, TENANT) for number in numbers]


def stored(status: Status = Status.QUEUED, *, requested: bool = True) -> Stored:
    return Stored(b"", 1, status, (), requested)


def known(recent: RecentFolds, *numbers: int) -> list[int]:
    """Those of these messages that it knows, and then knows no more."""
    return [key[0] for key in keys(*numbers) if recent.take(key) is not None]


def test_no_more_are_remembered_than_it_may_and_the_longest_unused_go_first() -> None:
    recent = RecentFolds(3)
    recent.put(dict.fromkeys(keys(1, 2, 3), stored()))
    used = recent.take((1, TENANT))
    assert used is not None
    recent.put({(1, TENANT): used, (4, TENANT): stored()})
    assert known(recent, 1, 2, 3, 4) == [1, 3, 4]


def test_what_has_ended_is_not_remembered_unless_its_beginning_is_to_come() -> None:
    recent = RecentFolds(3)
    recent.put(dict.fromkeys(keys(1, 2), stored()))
    recent.put({(1, TENANT): stored(Status.DELIVERED), (2, TENANT): stored(Status.DELIVERED, requested=False)})
    assert known(recent, 1, 2) == [2]


def test_corrections_that_nobody_asks_for_are_not_kept_without_end() -> None:
    recent = RecentFolds(2)
    generation = recent.generation
    for number in range(3):
        recent.correct({(number, TENANT): stored()})
    assert not recent.still_hold(generation, ())
    assert recent.still_hold(recent.generation, [(0, TENANT)])
