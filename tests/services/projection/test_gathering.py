"""What is kept back of messages that go on, and when it is handed on."""

from collections.abc import Sequence
from itertools import count

import pytest
from aiokafka.structs import TopicPartition

from libs.bus.codec import encode
from libs.bus.partitioning import partition_of
from libs.bus.record import Record
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
from services.projection.gathering import (
    HAND_SECONDS,
    KEPT_BEHIND_SECONDS,
    KEPT_SECONDS,
    MANY_KEPT,
    MOST_KEPT,
    MessagesGathered,
)
from services.projection.weighing import IN_VAIN_SECONDS
from tests.services.projection.stories import Story, Told

MOST = 10
A_WHILE = HAND_SECONDS + 0.01


class Gathered:
    """At a clock that the tests turn."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.messages = MessagesGathered(lambda: self.now)
        self.given = 0

    def after(
        self, seconds: float, *told: Told | bytes | None, most: int = MOST, topic: str = REQUESTED.name
    ) -> list[int]:
        """Give it these, and answer the offsets of what it hands on; they count from 0 over everything that was given."""
        self.now += seconds
        found: dict[TopicPartition, list[Record]] = {}
        for each in told:
            its_topic, value = (each[0], encode(each[2])) if isinstance(each, tuple) else (topic, each)
            place = TopicPartition(its_topic, 0)
            found.setdefault(place, []).append(Record(place, self.given, None, value, ()))
            self.given += 1
        return _offsets(self.messages.pass_on(found, most).values())


def _offsets(found: object) -> list[int]:
    return [raw.offset for raws in found for raw in raws]  # type: ignore[attr-defined]


def delivered(number: int) -> Sequence[Told]:
    requested, dispatched, submitted, end = Story(number).delivered()
    assert (requested.topic, end.topic) == (REQUESTED.name, STATUS.name)
    return requested, dispatched, submitted, end


def rejected(number: int) -> Sequence[Told]:
    """Two records, of which the second ends the message."""
    story = Story(number)
    return story.requested(), story.status(Status.REJECTED, part=0, try_number=0)


def test_the_end_of_a_message_brings_all_that_is_kept_of_it_and_nothing_else() -> None:
    gathered = Gathered()
    requested, dispatched, submitted, end = delivered(1)
    assert gathered.after(0, requested, Story(2).requested(), dispatched) == []
    assert gathered.after(A_WHILE, submitted) == []
    assert gathered.after(A_WHILE, end) == [0, 2, 3, 4]
    assert len(gathered.messages) == 1


def test_an_end_waits_for_its_beginning_and_what_comes_after_that_for_nothing() -> None:
    gathered = Gathered()
    requested, dispatched, submitted, end = delivered(1)
    assert gathered.after(0, submitted, end) == []
    assert gathered.after(0.1, requested) == []
    assert gathered.after(0.1, dispatched) == [0, 1, 2, 3]
    assert gathered.after(A_WHILE, submitted) == [4]
    assert len(gathered.messages) == 0


def test_what_was_not_sent_needs_no_dispatch() -> None:
    gathered = Gathered()
    requested, end = rejected(1)
    assert gathered.after(0, end) == []
    assert gathered.after(0.1, requested) == [0, 1]


@pytest.mark.parametrize("priority", Priority)
def test_what_is_deferred_waits_for_its_request_and_takes_it_along(priority: Priority) -> None:
    for refused in ({}, {"refused_part": 1, "refused_try": 1}):
        gathered, story, other = Gathered(), Story(1, priority=priority), Story(2, priority=priority)
        assert gathered.after(0, story.deferred(**refused)) == []
        assert gathered.after(0.1, story.requested()) == [0, 1]
        assert gathered.after(A_WHILE, other.deferred(**refused), other.requested()) == [3, 2]
        assert len(gathered.messages) == 0


@pytest.mark.parametrize("priority", Priority)
def test_what_was_deferred_is_gathered_anew_when_it_is_due_and_needs_no_request(priority: Priority) -> None:
    gathered, story = Gathered(), Story(1, priority=priority)
    assert gathered.after(0, story.requested(), story.deferred()) == [0, 1]
    assert gathered.after(A_WHILE, story.due()) == []
    assert gathered.after(0.1, story.status(Status.SUBMITTED), story.status(Status.DELIVERED)) == []
    assert gathered.after(0.1, story.dispatched()) == [2, 3, 4, 5]
    assert len(gathered.messages) == 0


@pytest.mark.parametrize("priority", Priority)
def test_a_refusal_goes_on_with_what_it_defers(priority: Priority) -> None:
    gathered, story = Gathered(), Story(1, priority=priority)
    deferred = story.deferred(refused_part=1, refused_try=1)
    refused = story.status(Status.REFUSED, reason="throttled")
    assert gathered.after(0, deferred, refused, story.requested(), story.dispatched()) == [2, 3, 1, 0]


def test_an_end_waits_in_vain_for_its_time_and_no_longer_than_a_while_once_all_is_read() -> None:
    for more in ([delivered(2)[0]], []):
        gathered = Gathered()
        assert gathered.after(0, delivered(1)[-1]) == []
        assert gathered.after(HAND_SECONDS - 0.01, *more) == []
        assert gathered.after(0.02, *more) == ([] if more else [0])
        gathered.after(KEPT_SECONDS - HAND_SECONDS, *more)
        assert len(gathered.messages) == 3 * len(more), "the end is gone"
        late = gathered.given
        assert late in gathered.after(A_WHILE, delivered(1)[0])


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


def test_an_end_does_not_wait_for_what_has_gone_on_before() -> None:
    gathered = Gathered()
    requested, dispatched, submitted, end = delivered(1)
    assert gathered.after(0, requested, dispatched) == []
    assert gathered.after(KEPT_SECONDS + 0.01) == [0, 1]
    assert gathered.after(A_WHILE, submitted, end) == [2, 3]
    requested, _, _, end = delivered(2)
    gathered.after(0, requested)
    gathered.messages.hurry()
    assert gathered.after(0) == [4]
    assert gathered.after(A_WHILE, end) == [5]


def test_what_goes_on_is_handed_on_after_its_time() -> None:
    gathered = Gathered()
    requested, dispatched, submitted, _ = delivered(1)
    assert gathered.after(0, requested) == []
    assert gathered.after(KEPT_SECONDS - 0.01, dispatched) == []
    assert gathered.after(0.02) == [0, 1]
    assert gathered.after(A_WHILE, submitted) == []
    assert gathered.after(KEPT_SECONDS) == [2]


def test_few_are_handed_on_now_and_then_and_many_at_once() -> None:
    gathered = Gathered()
    assert gathered.after(0, *rejected(1)) == [0, 1]
    assert gathered.after(0, *rejected(2)) == []
    assert gathered.after(A_WHILE) == [2, 3]
    assert gathered.after(0, *rejected(3), *rejected(4), *rejected(5)) == [4, 6, 8, 5, 7, 9]


def test_few_do_not_wait_when_nothing_more_comes() -> None:
    gathered = Gathered()
    assert gathered.after(0, *rejected(1)) == [0, 1]
    assert gathered.after(0.1, *rejected(2)) == []
    assert gathered.after(0.1) == [2, 3]


def test_a_batch_has_as_many_as_asked_for_and_the_rest_comes_with_the_next() -> None:
    gathered = Gathered()
    given = [step for number in range(11) for step in rejected(number)]
    assert sorted(gathered.after(0, *given)) == list(range(10))
    assert sorted(gathered.after(0)) == list(range(10, 20))
    assert gathered.after(A_WHILE) == list(range(20, 22))


def test_while_there_is_more_to_do_messages_that_have_ended_go_first() -> None:
    gathered = Gathered()
    ended = (rejected(number) for number in count(100))
    assert gathered.after(0, Story(1).requested()) == []
    assert 0 not in gathered.after(KEPT_SECONDS, *next(ended), *next(ended), *next(ended), *next(ended))
    assert 0 in gathered.after(KEPT_BEHIND_SECONDS, *next(ended), *next(ended), *next(ended), *next(ended))


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


def test_who_waits_gets_all_at_once() -> None:
    gathered = Gathered()
    gathered.after(0, *(Story(number).requested() for number in range(3)), delivered(4)[-1])
    gathered.messages.hurry()
    assert gathered.after(0) == [0, 1, 2, 3]


def test_what_is_taken_away_is_forgotten() -> None:
    gathered = Gathered()
    gathered.after(0, *rejected(1))
    gathered.after(0, *rejected(2), Story(3).requested(), delivered(4)[-1])
    gathered.messages.forget()
    assert len(gathered.messages) == 0
    assert gathered.after(KEPT_SECONDS) == []


def test_what_hides_its_message_is_handed_on_at_once() -> None:
    gathered = Gathered()
    assert gathered.after(0, None, b"", b"{}", b'{"subject": 7}') == [0, 1, 2, 3]


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
    gathered.after(0, *_requests(MANY_KEPT))
    assert gathered.messages.wanted(assigned) == assigned
    gathered.after(0, *_requests(1))
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
        gathered.after(0, *_requests(many))
        gathered.after(0, delivered(1)[-1])
        end = gathered.given - 1
        assert end not in gathered.after(patience - 0.1, *_requests(1), most=2 * many)
        assert end in gathered.after(HAND_SECONDS, *_requests(1), most=2 * many or MOST)


def test_with_too_many_kept_the_oldest_go() -> None:
    gathered = Gathered()
    assert gathered.after(0, *_requests(MOST_KEPT)) == []
    assert gathered.after(0, *_requests(4)) == [0, 1, 2, 3]
    assert gathered.after(KEPT_BEHIND_SECONDS) == list(range(4, 4 + MOST))


def test_with_too_many_that_wait_for_their_beginning_the_first_go() -> None:
    gathered = Gathered()
    ends = _of_others(Story(1).status(Status.REJECTED, part=0, try_number=0), MOST_KEPT + 4)
    assert gathered.after(0, *ends[:-4], topic=STATUS.name) == []
    assert gathered.after(0.1, *ends[-4:], topic=STATUS.name) == [0, 1, 2, 3]


def _requests(number: int) -> list[bytes]:
    return _of_others(Story(1).requested(), number)


def _of_others(told: Told, number: int) -> list[bytes]:
    """The same of so many messages that no other test has."""
    value = encode(told.event)
    at = value.index(b'"subject":"') + len(b'"subject":"')
    return [value[:at] + b"%036d" % next(_numbers) + value[at + 36 :] for _ in range(number)]


_numbers = count()


def test_an_end_that_says_nothing_of_its_person_waits_for_nothing() -> None:
    gathered = Gathered()
    end = delivered(1)[-1]
    value = encode(end.event).replace(b'"tenant"', b'"tenants"')
    assert gathered.after(0, value, topic=STATUS.name) == [0]


def test_an_event_about_something_else_that_looks_like_an_end_is_none() -> None:
    gathered = Gathered()
    request = encode(Story(1).requested().event).replace(b'{"loan":[1,"a"]}', b'{"status":"delivered"}')
    assert b'"status":"delivered"' in request
    assert gathered.after(0, request) == []


@pytest.mark.parametrize("priority", Priority)
def test_with_many_kept_requests_are_wanted_where_what_is_deferred_waits_for_them(priority: Priority) -> None:
    gathered = Gathered()
    requests = [TopicPartition(requested(priority).name, n) for n in range(PARTITIONS)]
    returns = [TopicPartition(returned(priority).name, n) for n in range(PARTITIONS)]
    deferrals = [TopicPartition(deferred(priority).name, n) for n in range(PARTITIONS)]
    dispatches = [TopicPartition(dispatch("demo", priority).name, n) for n in range(PARTITIONS)]
    gathered.after(0, *_requests(MANY_KEPT + 1))
    gathered.after(0, Story(1, priority=priority).deferred())  # of partition 0
    wanted = gathered.messages.wanted(frozenset((*requests, *returns, *deferrals, *dispatches)))
    assert wanted == {requests[0], returns[0], *deferrals}
