"""What is kept back while there is much to do, or while it does not pay to wait."""

from itertools import count

import msgspec
import pytest
from aiokafka.structs import TopicPartition

from libs.bus.partitioning import partition_of
from libs.contracts.events import Priority, person_key
from libs.contracts.statuses import Status
from libs.contracts.topics import (
    DEFERRED,
    PARTITIONS,
    REQUESTED,
    RETURNED,
    STATUS,
    deferred,
    dispatch,
    requested,
    returned,
)
from services.projection import gathering
from services.projection.gathering import (
    HAND_SECONDS,
    KEPT_BEHIND_SECONDS,
    KEPT_SECONDS,
    MANY_KEPT,
    MANY_KEPT_OF_NO_END,
    MOST_KEPT,
)
from services.projection.weighing import IN_VAIN_SECONDS
from tests.services.projection.conftest import records
from tests.services.projection.gathered import A_WHILE, MOST, Gathered, delivered, of_others, rejected, requests
from tests.services.projection.stories import Story


def test_where_ends_wait_in_vain_they_wait_no_more_until_beginnings_come_late() -> None:
    """Statuses may come to one replica, and requests to another."""
    gathered, numbers = Gathered(), count(1)

    def waits() -> bool:
        handed = gathered.after(A_WHILE, delivered(next(numbers))[0], delivered(next(numbers))[-1])
        return gathered.given - 1 not in handed

    assert waits()
    while gathered.now < 1000 + KEPT_BEHIND_SECONDS + KEPT_SECONDS:
        gathered.after(A_WHILE)
    gathered.after(KEPT_BEHIND_SECONDS)
    assert not waits()
    last = next(numbers) - 1
    gathered.after(KEPT_BEHIND_SECONDS, delivered(last)[0])
    gathered.after(KEPT_BEHIND_SECONDS)
    assert waits()
    gathered.after(KEPT_BEHIND_SECONDS)
    gathered.after(KEPT_BEHIND_SECONDS)
    assert not waits()
    gathered.after(IN_VAIN_SECONDS)
    assert waits(), "they are tried again"


def test_where_most_do_not_end_they_are_kept_no_longer_for_it() -> None:
    """Before a slow gateway: to wait for ends that don't come would only hold up what follows."""
    gathered, numbers = Gathered(), count(1)

    def handed_when_more_come(seconds: float) -> list[int]:
        return gathered.after(seconds, *(Story(next(numbers)).requested() for _ in range(MOST)), most=3 * MOST)

    assert [handed_when_more_come(1) for _ in range(5)] == [[]] * 5, "behind: so many were found"
    assert [len(handed_when_more_come(1)) for _ in range(4)] == [3 * MOST, 3 * MOST, MOST, MOST], (
        "what is one second old"
    )
    for first in (1000, 2000):
        ended = [step for number in range(first, first + 3 * MOST) for step in rejected(number)]
        gathered.after(KEPT_BEHIND_SECONDS, *ended, most=100)
    assert handed_when_more_come(A_WHILE) == []
    assert handed_when_more_come(1) == [], "most have ended since"


def test_with_many_kept_beginnings_are_wanted_where_ends_wait_for_them() -> None:
    gathered, story = Gathered(), Story(1)
    requested, dispatched, _, end = story.delivered()
    number = partition_of(person_key(story.message.tenant, story.message.recipient), PARTITIONS)
    every = {
        topic: [TopicPartition(topic, n) for n in range(PARTITIONS)]
        for topic in (REQUESTED.name, RETURNED.name, dispatched.topic, STATUS.name, DEFERRED.name)
    }
    assigned = frozenset(partition for partitions in every.values() for partition in partitions)
    others = {*every[STATUS.name], *every[DEFERRED.name]}
    gathered.after(0, *requests(MANY_KEPT))
    assert gathered.messages.wanted(assigned) == assigned
    gathered.after(0, *requests(1))
    assert gathered.messages.wanted(assigned) == others
    assert gathered.messages.wanted(frozenset(every[REQUESTED.name])) == frozenset(every[REQUESTED.name]), (
        "it has no others"
    )
    gathered.after(0, end)
    beginnings = (REQUESTED.name, RETURNED.name, dispatched.topic)
    assert gathered.messages.wanted(assigned) == others | {every[topic][number] for topic in beginnings}
    gathered.after(0, requested)
    assert gathered.messages.wanted(assigned) == others | {every[dispatched.topic][number]}
    gathered.after(0, dispatched)
    assert gathered.messages.wanted(assigned) == others


def test_with_many_kept_an_end_waits_longer_while_more_is_read() -> None:
    for many, patience in ((0, KEPT_SECONDS), (MANY_KEPT + 1, KEPT_BEHIND_SECONDS)):
        gathered = Gathered()
        gathered.after(0, *requests(many))
        gathered.after(0, delivered(1)[-1])
        end = gathered.given - 1
        assert end not in gathered.after(patience - 0.1, *requests(1), most=2 * many)
        assert end in gathered.after(HAND_SECONDS, *requests(1), most=2 * many or MOST)


def test_with_too_many_kept_the_oldest_go() -> None:
    gathered = Gathered()
    assert gathered.after(0, *requests(MOST_KEPT)) == []
    assert gathered.after(0, *requests(4)) == [0, 1, 2, 3]
    assert gathered.after(0, *requests(2)) == [4, 5], "at once"
    assert gathered.after(KEPT_BEHIND_SECONDS) == list(range(6, 6 + MOST))


def test_of_messages_that_were_handed_on_only_the_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "REMEMBERED", 3)
    gathered = Gathered()
    for number in range(1, 10):
        gathered.after(A_WHILE, *rejected(number))
    late = gathered.given
    assert gathered.after(A_WHILE, Story(9).requested()) == [late]
    assert gathered.after(A_WHILE, Story(1).requested()) == [], "as of a new message"


@pytest.mark.parametrize("pays", ["worth_waiting", "ends_wait"])
def test_where_waiting_does_not_pay_beginnings_are_wanted_while_more_are_kept(pays: str) -> None:
    gathered = Gathered()
    assigned = frozenset(TopicPartition(topic, 0) for topic in (REQUESTED.name, STATUS.name))
    gathered.after(0, *requests(MANY_KEPT + 1))
    assert gathered.messages.wanted(assigned) != assigned
    setattr(gathered.messages._weighing, pays, False)
    assert gathered.messages.wanted(assigned) == assigned
    gathered.after(0, *requests(MANY_KEPT_OF_NO_END - MANY_KEPT))
    assert gathered.messages.wanted(assigned) != assigned


def test_with_too_many_that_wait_for_their_beginning_the_first_go() -> None:
    gathered = Gathered()
    ends = of_others(Story(1).status(Status.REJECTED, part=0, try_number=0), MOST_KEPT + 4)
    assert gathered.after(0, *ends[:-4], topic=STATUS.name) == []
    assert gathered.after(0.1, *ends[-4:], topic=STATUS.name) == [0, 1, 2, 3]


@pytest.mark.parametrize("priority", Priority)
def test_with_many_kept_requests_are_wanted_where_what_is_deferred_waits_for_them(priority: Priority) -> None:
    gathered = Gathered()
    first = [TopicPartition(requested(priority).name, n) for n in range(PARTITIONS)]
    returns = [TopicPartition(returned(priority).name, n) for n in range(PARTITIONS)]
    deferrals = [TopicPartition(deferred(priority).name, n) for n in range(PARTITIONS)]
    dispatches = [TopicPartition(dispatch("demo", priority).name, n) for n in range(PARTITIONS)]
    gathered.after(0, *requests(MANY_KEPT + 1))
    (deferral,) = records([Story(1, priority=priority).deferred()])
    gathered.messages.pass_on({deferrals[1]: [msgspec.structs.replace(deferral, source=deferrals[1])]}, MOST)
    wanted = gathered.messages.wanted(frozenset((*first, *returns, *deferrals, *dispatches)))
    assert wanted == {first[1], returns[1], *deferrals}
