"""What the bus asks of a broker: a way to publish, and a source of records with consumer groups. Kafka and memory are both one."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec
from aiokafka.structs import TopicPartition

from libs.bus.record import Headers, Record
from libs.contracts.topics import Topic
from libs.service_kit.kafka import Cluster

Partitions = frozenset[TopicPartition]
Offsets = Mapping[TopicPartition, int]
"""Of each partition the offset of the next record."""
Found = Mapping[TopicPartition, Sequence[Record]]
"""Records by partition, each in order unless gathered."""
OnRebalance = Callable[[Partitions], Awaitable[None]]
KeyValue = tuple[bytes | None, bytes | None]


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One record to publish. Without headers of its own it says that it is a CloudEvent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers | None = None


@dataclass(frozen=True, slots=True)
class TopicFamily:
    """Every topic whose name matches the regular expression, also those created later; all carry the same events."""

    pattern: str
    like: Topic

    def topic(self, name: str) -> Topic | None:
        return replace(self.like, name=name) if re.fullmatch(self.pattern, name) else None


Topics = Sequence[Topic | TopicFamily]


def pattern_of(topics: Topics) -> str | None:
    """One regular expression for all of them; None if each is named."""
    if all(isinstance(topic, Topic) for topic in topics):
        return None
    return "|".join(f"(?:^{re.escape(t.name)}$)" if isinstance(t, Topic) else f"(?:{t.pattern})" for t in topics)


class Publisher(Protocol):
    """Returns when every record is acknowledged by all replicas; raises `PublishFailed` or `RecordTooLarge` otherwise."""

    async def publish(self, topic: str, records: Sequence[KeyValue]) -> None: ...

    async def publish_many(self, records: Sequence[Outgoing]) -> None: ...


class Source(Protocol):
    """One member of a consumer group. Assignments are eager: a rebalance takes all partitions, then gives the new ones.

    `on_revoked` is awaited before the group goes on, `on_assigned` before the first record; neither is called by `stop`.
    """

    async def start(self) -> None:
        """Join the group; waits, for as long as it takes, for the broker and for the topics."""
        ...

    async def fetch(self, partitions: Partitions, *, timeout_ms: int, max_records: int) -> Found:
        """Records of these assigned partitions (of all if none is named), each in order; empty after `timeout_ms`.

        Waits while a rebalance is under way; the broker's absence is waited out.
        """
        ...

    def rest(self, seconds: float) -> None:
        """Ask the broker for nothing for so long, or until the next `fetch`: what comes meanwhile comes together.

        To be called at once after a `fetch`, before anything is awaited.
        """
        ...

    async def commit(self, offsets: Offsets) -> None:
        """Store the offsets of the next records to read. Raises KafkaError, or TimeoutError."""
        ...

    async def lag_bounds(self) -> Mapping[TopicPartition, tuple[int, int]]:
        """Of each assigned partition the next offset to fetch and the end. Raises KafkaError, also where a topic that it reads is not
        there, or TimeoutError."""
        ...

    def assignment(self) -> Partitions: ...

    async def stop(self) -> None:
        """Leave the group."""
        ...


class Gathering(Protocol):
    """Keeps records back for a while, to hand them on together with others.

    Meanwhile they count as delivered and unfinished: they hold up what is committed, and come again after a crash or a rebalance.
    """

    def __len__(self) -> int:
        """How many it has."""
        ...

    def wanted(self, partitions: Partitions) -> Partitions:
        """From which of these partitions it wants more now: from one at least."""
        ...

    def pass_on(self, found: Found, most: int) -> Found:
        """Take what was found, and hand on what is to be handled now: about `most` records at most, of a partition in any order."""
        ...

    def hurry(self) -> None:
        """Hand on all there is, the next time."""
        ...

    def forget(self) -> None:
        """What it has is ours no longer."""
        ...


class OpenSource(Protocol):
    """Makes a source; `KafkaSource` is one such."""

    def __call__(
        self,
        cluster: Cluster,
        *,
        group: str,
        topics: Topics,
        on_revoked: OnRebalance,
        on_assigned: OnRebalance,
        rebalance_timeout_ms: int,
    ) -> Source: ...
