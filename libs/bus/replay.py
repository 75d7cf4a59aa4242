"""Dead letters, read by people: what lies there, and the way back to where it came from.

That one was replayed is written behind it, in the same partition of the dead letters: a record without content that names its offset. So
it is remembered for exactly as long as the dead letter lies there, and there is no second topic to keep.

Every consumer group that can't handle a record leaves a dead letter of its own. The record goes back once, for all of them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from libs.bus.admin import DEAD_LETTER_PARTITIONS
from libs.bus.codec import message_id_of
from libs.bus.dead_letters import WITHOUT_CONTENT
from libs.bus.port import Outgoing, Publisher
from libs.bus.record import Headers
from libs.contracts.topics import DEAD_LETTER
from libs.service_kit.kafka import Cluster

REPLAYED = "dead-letter-replayed"
"""The header of a mark: the offset of the dead letter that was replayed."""
FETCH_MILLISECONDS = 1_000

_ID = re.compile(r"(.+)/(\d+):(\d+)")


class UnknownDeadLetter(LookupError):
    """No dead letter that can be replayed has this id: it never had, it has passed its retention, or its content was not kept."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What may be shown of a dead letter: never its content. `topic` is where it came from; `place` is where it lies.

    `record` is a hash of the record that it was made of, which holds in this process alone: all dead letters of one record have the same.
    """

    topic: str
    place: TopicPartition
    offset: int
    at: datetime
    reason: str
    words: str
    group: str
    message_id: UUID | None
    record: int

    @property
    def id(self) -> str:
        """`<topic>/<partition>:<offset>`, of the place in the topic's dead letters."""
        return f"{self.place.topic.removesuffix(DEAD_LETTER)}/{self.place.partition}:{self.offset}"


class DeadLetterBox:
    """All dead letters of a cluster, through a consumer of no group; see `open_dead_letters`."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def waiting(self, topic: str | None = None, reason: str | None = None) -> list[DeadLetter]:
        """Those that were not replayed, oldest first; of one topic or one reason if that is given."""
        found: dict[tuple[TopicPartition, int], DeadLetter] = {}
        async for record in self._records(dict.fromkeys(await self._places(topic), 0)):
            place, headers = TopicPartition(record.topic, record.partition), dict(record.headers)
            if REPLAYED in headers:
                found.pop((place, int(headers[REPLAYED])), None)
            else:
                found[place, record.offset] = _letter(place, record)
        wanted = (letter for letter in found.values() if reason is None or letter.reason == reason)
        return sorted(wanted, key=lambda letter: (letter.at, letter.id))

    async def find(self, letter_id: str) -> tuple[DeadLetter, bool]:
        """The dead letter with this id, and whether it was replayed. Raises UnknownDeadLetter."""
        if (match := _ID.fullmatch(letter_id)) is None:
            raise UnknownDeadLetter(f"{letter_id}: a dead letter's id is <topic>/<partition>:<offset>")
        place, offset = TopicPartition(match[1].removesuffix(DEAD_LETTER) + DEAD_LETTER, int(match[2])), int(match[3])
        found, replayed = None, False
        if place in await self._places(match[1]):
            async for record in self._records({place: offset}):
                mark = dict(record.headers).get(REPLAYED)
                if record.offset == offset and mark is None:
                    found = _letter(place, record)
                replayed = replayed or (mark is not None and int(mark) == offset)
        if found is None:
            raise UnknownDeadLetter(f"{letter_id}: there is no such dead letter")
        return found, replayed

    async def of_one_record(self, letter: DeadLetter) -> list[DeadLetter]:
        """This dead letter, and those that were not replayed of the same record."""
        waiting = await self.waiting(letter.place.topic)
        return [
            letter,
            *(other for other in waiting if other.record == letter.record and other.offset != letter.offset),
        ]

    async def replay(self, letters: Sequence[DeadLetter], publisher: Publisher) -> None:
        """Publish the record of which all these were made to its topic as it was, key and headers too, then mark them.

        A crash between the two leaves them unmarked, and replaying it again makes a duplicate, which every consumer knows to expect.
        Raises PublishFailed, and UnknownDeadLetter when its retention has ended meanwhile, or its content was not kept.
        """
        letter = max(letters, key=lambda letter: letter.offset)  # which is kept the longest
        record = await self._read(letter)
        if WITHOUT_CONTENT in dict(record.headers):
            raise UnknownDeadLetter(f"{letter.id}: it was too large to be kept, and can't be replayed")
        headers = [(name, value) for name, value in record.headers if not name.startswith("dead-letter-")]
        await publisher.publish_many([Outgoing(letter.topic, record.key, record.value, headers)])
        marks: list[Headers] = [[(REPLAYED, str(each.offset).encode())] for each in letters]
        await publisher.publish_many([Outgoing(letter.place.topic, record.key, None, mark) for mark in marks])

    async def _places(self, topic: str | None) -> list[TopicPartition]:
        """The partitions of dead letters, of one topic or of all."""
        wanted = topic and topic.removesuffix(DEAD_LETTER) + DEAD_LETTER
        names = sorted(name for name in await self._consumer.topics() if name.endswith(DEAD_LETTER))
        return [
            TopicPartition(name, partition)
            for name in names
            if wanted is None or name == wanted
            for partition in range(DEAD_LETTER_PARTITIONS)
        ]

    async def _records(self, first: Mapping[TopicPartition, int]) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
        """What lies in these partitions, from an offset of each on, up to their ends now."""
        consumer = self._consumer
        consumer.assign(list(first))  # so that all their leaders are asked for at once
        begins, ends = await consumer.beginning_offsets(list(first)), await consumer.end_offsets(list(first))
        for place, offset in first.items():
            consumer.seek(place, max(begins[place], offset))
        while left := [place for place in first if await consumer.position(place) < ends[place]]:
            for place, records in (await consumer.getmany(*left, timeout_ms=FETCH_MILLISECONDS)).items():
                for record in records:
                    if record.offset < ends[place]:
                        yield record

    async def _read(self, letter: DeadLetter) -> ConsumerRecord[bytes, bytes]:
        async for record in self._records({letter.place: letter.offset}):
            if record.offset == letter.offset:
                return record
            break
        raise UnknownDeadLetter(f"{letter.id}: it has passed its retention")


@asynccontextmanager
async def open_dead_letters(cluster: Cluster) -> AsyncGenerator[DeadLetterBox]:
    """The dead letters of the cluster. Raises KafkaError when it is not there."""
    consumer = AIOKafkaConsumer(
        **cluster.options(),
        client_id="dead-letters",
        enable_auto_commit=False,
        fetch_max_wait_ms=50,  # else questions wait behind a fetch that finds nothing
    )
    try:
        await consumer.start()
        await asyncio.sleep(0)  # aiokafka's stop raises CancelledError if its own tasks never began
        yield DeadLetterBox(consumer)
    finally:
        await consumer.stop()


def by_record(letters: Iterable[DeadLetter]) -> list[list[DeadLetter]]:
    """Those of one record together, in the order in which they come."""
    found: dict[int, list[DeadLetter]] = {}
    for letter in letters:
        found.setdefault(letter.record, []).append(letter)
    return list(found.values())


def _letter(place: TopicPartition, record: ConsumerRecord[bytes, bytes]) -> DeadLetter:
    headers = dict(record.headers)  # ours were added last, and win

    def header(name: str) -> str:
        return headers.get(f"dead-letter-{name}", b"").decode(errors="replace")

    return DeadLetter(
        topic=header("topic") or place.topic.removesuffix(DEAD_LETTER),
        place=place,
        offset=record.offset,
        at=datetime.fromtimestamp(record.timestamp / 1000, UTC),
        reason=header("reason") or "unknown",
        words=header("words"),
        group=header("group"),
        message_id=message_id_of(record.value),
        # Of the content too: in a topic that was deleted and made anew, the same offsets name other records.
        record=hash((header("topic"), header("partition"), header("offset"), record.key, record.value)),
    )
