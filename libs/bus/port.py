"""What the bus asks of a broker: a way to publish, and a source of records with consumer groups. Kafka and memory are both one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiokafka.structs import ConsumerRecord, TopicPartition

from libs.contracts.topics import Topic

Headers = Sequence[tuple[str, bytes]]
Partitions = frozenset[TopicPartition]
OnRebalance = Callable[[Partitions], Awaitable[None]]
KeyValue = tuple[bytes | None, bytes | None]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record to publish. Without headers of its own it says that it is a CloudEvent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers | None = None


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

    async def fetch(
        self, partitions: Partitions, *, timeout_ms: int, max_records: int
    ) -> Mapping[TopicPartition, Sequence[ConsumerRecord]]:
        """Records of these assigned partitions, each in order; empty after `timeout_ms`. Raises KafkaError."""
        ...

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Store the offsets of the next records to read. Raises KafkaError, or TimeoutError."""
        ...

    async def end_offsets(self, partitions: Partitions) -> Mapping[TopicPartition, int]: ...

    def assignment(self) -> Partitions: ...

    async def stop(self) -> None:
        """Leave the group."""
        ...


class OpenSource(Protocol):
    """Makes a source; `KafkaSource` is one such."""

    def __call__(
        self,
        bootstrap_servers: str,
        *,
        group: str,
        topics: Sequence[Topic],
        on_revoked: OnRebalance,
        on_assigned: OnRebalance,
        rebalance_timeout_ms: int,
    ) -> Source: ...
