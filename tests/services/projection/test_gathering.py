"""What is kept back of messages that go on, and when it is handed on."""

from collections.abc import Sequence
from itertools import count

from aiokafka.structs import TopicPartition

from libs.bus.codec import encode
from libs.bus.record import Record
from libs.contracts.topics import REQUESTED, STATUS
from services.projection.gathering import HAND_SECONDS, KEPT_BEHIND_SECONDS, KEPT_SECONDS, MOST_KEPT, MessagesGathered
from tests.services.projection.stories import Story, Told

MOST = 10
A_WHILE = HAND_SECONDS + 0.01
REQUESTS, STATUSES = TopicPartition(REQUESTED.name, 0), TopicPartition(STATUS.name, 0)


class Gathered:
    """At a clock that the tests turn."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.messages = MessagesGathered(lambda: self.now)
        self._offsets = count()

    def after(self, seconds: float, *told: Told | bytes | None, most: int = MOST) -> list[int]:
        """Give it these, and answer the offsets of what it hands on; they count from 0 over everything that was given."""
        self.now += seconds
        found: dict[TopicPartition, list[Record]] = {}
        for each in told:
            topic, value = (each[0], encode(each[2])) if isinstance(each, tuple) else (REQUESTED.name, each)
            place = TopicPartition(topic, 0)
            found.setdefault(place, []).append(Record(place, next(self._offsets), None, value, ()))
        return _offsets(self.messages.pass_on(found, most).values())


def _offsets(found: object) -> list[int]:
    return [raw.offset for raws in found for raw in raws]  # type: ignore[attr-defined]


def delivered(number: int) -> Sequence[Told]:
    requested, dispatched, submitted, end = Story(number).delivered()
    assert (requested.topic, end.topic) == (REQUESTED.name, STATUS.name)
    return requested, dispatched, submitted, end


def test_the_end_of_a_message_brings_all_that_is_kept_of_it_and_nothing_else() -> None:
    gathered = Gathered()
    requested, dispatched, submitted, end = delivered(1)
    assert gathered.after(0, requested, Story(2).requested(), dispatched) == []
    assert gathered.after(A_WHILE, submitted) == []
    assert gathered.after(A_WHILE, end) == [0, 2, 3, 4]
    assert len(gathered.messages) == 1


def test_what_comes_after_the_end_of_its_message_is_not_kept_back() -> None:
    gathered = Gathered()
    requested, dispatched, submitted, end = delivered(1)
    assert gathered.after(0, submitted, end, requested) == [2, 0, 1]
    assert gathered.after(A_WHILE, dispatched) == [3]


def test_what_goes_on_is_handed_on_after_its_time() -> None:
    gathered = Gathered()
    requested, dispatched, submitted, end = delivered(1)
    assert gathered.after(0, requested) == []
    assert gathered.after(KEPT_SECONDS - 0.01, dispatched) == []
    assert gathered.after(0.02) == [0, 1]
    assert gathered.after(A_WHILE, submitted, end) == [2, 3]
    assert len(gathered.messages) == 0


def test_few_are_handed_on_now_and_then_and_many_at_once() -> None:
    gathered = Gathered()
    ends = [delivered(number)[-1] for number in range(MOST)]
    assert gathered.after(0, ends[0]) == [0]
    assert gathered.after(0, *ends[1:3]) == []
    assert gathered.after(A_WHILE) == [1, 2]
    assert gathered.after(0, *ends[3:8]) == [3, 4, 5, 6, 7]


def test_few_do_not_wait_when_nothing_more_comes() -> None:
    gathered = Gathered()
    ends = [delivered(number)[-1] for number in range(MOST)]
    assert gathered.after(0, ends[0]) == [0]
    assert gathered.after(0.1, ends[1]) == []
    assert gathered.after(0.1) == [1]


def test_a_batch_has_as_many_as_asked_for_and_the_rest_comes_with_the_next() -> None:
    gathered = Gathered()
    assert gathered.after(0, *(delivered(number)[-1] for number in range(25))) == list(range(10))
    assert gathered.after(0) == list(range(10, 20))
    assert gathered.after(A_WHILE) == list(range(20, 25))


def test_while_there_is_more_to_do_messages_that_have_ended_go_first() -> None:
    gathered = Gathered()
    ends = (delivered(number)[-1] for number in count(100))
    assert gathered.after(0, Story(1).requested()) == []
    assert 0 not in gathered.after(KEPT_SECONDS, *(next(ends) for _ in range(8)))
    assert 0 in gathered.after(KEPT_BEHIND_SECONDS, *(next(ends) for _ in range(8)))


def test_where_most_do_not_end_they_are_kept_no_longer_for_it() -> None:
    """Before a slow gateway: to wait for ends that don't come would only hold up what follows."""
    gathered, numbers = Gathered(), count(1)

    def handed_when_more_come(seconds: float) -> list[int]:
        return gathered.after(seconds, *(Story(next(numbers)).requested() for _ in range(MOST)), most=3 * MOST)

    assert [handed_when_more_come(1) for _ in range(3)] == [[], [], []], "behind: so many were found"
    assert [len(handed_when_more_come(1)) for _ in range(3)] == [MOST, MOST, MOST], "what is three seconds old"
    assert [len(handed_when_more_come(1)) for _ in range(2)] == [3 * MOST, MOST], "what is one second old"
    for first in (1000, 2000):
        ends = [delivered(number)[-1] for number in range(first, first + 5 * MOST)]
        gathered.after(KEPT_BEHIND_SECONDS, *ends, most=100)
    assert handed_when_more_come(A_WHILE) == []
    assert handed_when_more_come(1) == [], "most have ended since"


def test_who_waits_gets_all_at_once() -> None:
    gathered = Gathered()
    gathered.after(0, *(Story(number).requested() for number in range(3)))
    gathered.messages.hurry()
    assert gathered.after(0) == [0, 1, 2]


def test_what_is_taken_away_is_forgotten() -> None:
    gathered = Gathered()
    gathered.after(0, delivered(1)[-1])
    gathered.after(0, delivered(2)[-1], Story(3).requested())
    gathered.messages.forget()
    assert len(gathered.messages) == 0
    assert gathered.after(KEPT_SECONDS) == []


def test_what_hides_its_message_is_handed_on_at_once() -> None:
    gathered = Gathered()
    assert gathered.after(0, None, b"", b"{}", b'{"subject": 7}') == [0, 1, 2, 3]


def test_with_many_kept_only_statuses_are_wanted_and_with_twice_as_many_the_oldest_go() -> None:
    gathered, both = Gathered(), frozenset({REQUESTS, STATUSES})
    value = bytearray(encode(Story(1).requested().event))
    at = value.index(b'"subject":"') + len(b'"subject":"')

    def requests(number: int) -> list[bytes]:
        made: list[bytes] = []
        for _ in range(number):
            value[at : at + 36] = b"%036d" % next(numbers)
            made.append(bytes(value))
        return made

    numbers = count()
    gathered.after(0, *requests(MOST_KEPT))
    assert gathered.messages.wanted(both) == both
    assert gathered.after(0, *requests(1)) == []
    assert gathered.messages.wanted(both) == {STATUSES}
    assert gathered.messages.wanted(frozenset({REQUESTS})) == {REQUESTS}
    assert gathered.after(0, *requests(MOST_KEPT + 3)) == [0, 1, 2, 3]
    assert gathered.after(KEPT_BEHIND_SECONDS) == list(range(4, 4 + MOST))


def test_with_many_kept_what_lags_behind_the_statuses_is_wanted_too() -> None:
    gathered = Gathered()
    stories = [delivered(number) for number in range(100, 110)]
    dispatches, others = TopicPartition(stories[0][1].topic, 0), TopicPartition("sms.returned", 0)
    everything = frozenset({REQUESTS, STATUSES, dispatches, others})
    request, sample = Story(1).requested(), str(Story(1).id).encode()
    gathered.after(0, *(encode(request.event).replace(sample, b"0%035d" % n) for n in range(MOST_KEPT + 1)))
    gathered.after(0, *(requested for requested, *_ in stories))
    gathered.after(0, *(dispatched for _, dispatched, *_ in stories[:2]))
    gathered.after(0, *(submitted for *_, submitted, _ in stories[:2]))
    assert gathered.messages.wanted(everything) == {STATUSES, others}, "what nothing was read of may lag"
    gathered.after(0, *(submitted for *_, submitted, _ in stories[2:4]))
    assert gathered.messages.wanted(everything) == {STATUSES, others, dispatches}
    gathered.after(0, *(dispatched for _, dispatched, *_ in stories[2:4]))
    assert gathered.messages.wanted(everything) == {STATUSES, others}


def test_an_event_about_something_else_that_looks_like_an_end_is_none() -> None:
    gathered = Gathered()
    request = encode(Story(1).requested().event).replace(b'{"loan":[1,"a"]}', b'{"status":"delivered"}')
    assert b'"status":"delivered"' in request
    assert gathered.after(0, request) == []
