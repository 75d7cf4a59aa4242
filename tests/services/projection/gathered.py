"""Records given to `MessagesGathered`, at a clock that the tests turn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from aiokafka.structs import TopicPartition

from libs.bus.codec import encode
from libs.bus.record import Record
from libs.contracts.statuses import Status
from libs.contracts.topics import REQUESTED, STATUS
from services.projection.gathering import HAND_SECONDS, MessagesGathered
from tests.services.projection.stories import Story, Told

MOST = 10
A_WHILE = HAND_SECONDS + 0.01
_numbers = count()


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


def requests(number: int) -> list[bytes]:
    return of_others(Story(1).requested(), number)


def of_others(told: Told, number: int) -> list[bytes]:
    """The same of so many messages that no other test has."""
    value = encode(told.event)
    at = value.index(b'"subject":"') + len(b'"subject":"')
    return [value[:at] + b"%036d" % next(_numbers) + value[at + 36 :] for _ in range(number)]
