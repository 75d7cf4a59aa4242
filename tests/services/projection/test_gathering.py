"""What is kept back of messages that go on, and when it is handed on."""

from itertools import count

import pytest

from libs.bus.codec import encode
from libs.contracts.events import Priority
from libs.contracts.statuses import Status
from libs.contracts.topics import (
    STATUS,
)
from services.projection.gathering import (
    HAND_SECONDS,
    KEPT_BEHIND_SECONDS,
    KEPT_SECONDS,
)
from tests.services.projection.gathered import A_WHILE, Gathered, delivered, rejected
from tests.services.projection.stories import Story


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
    assert gathered.after(A_WHILE, Story(11).requested()) == []
    assert gathered.after(KEPT_SECONDS) == [22], "there is no more to do"


def test_while_there_is_more_to_do_messages_that_have_ended_go_first() -> None:
    gathered = Gathered()
    ended = (rejected(number) for number in count(100))
    assert gathered.after(0, Story(1).requested()) == []
    assert 0 not in gathered.after(KEPT_SECONDS, *next(ended), *next(ended), *next(ended), *next(ended))
    assert 0 in gathered.after(KEPT_BEHIND_SECONDS, *next(ended), *next(ended), *next(ended), *next(ended))


def test_who_waits_gets_all_at_once() -> None:
    gathered = Gathered()
    gathered.after(0, *(Story(number).requested() for number in range(3)), delivered(4)[-1])
    gathered.messages.hurry()
    assert gathered.after(0) == [0, 1, 2, 3]


def test_who_waits_gets_all_also_when_some_were_handed_on_a_moment_ago() -> None:
    gathered = Gathered()
    assert gathered.after(0, *rejected(1)) == [0, 1]
    assert gathered.after(0, Story(2).requested()) == []
    gathered.messages.hurry()
    assert gathered.after(0, Story(3).requested()) == [2]


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
