"""The positions of the projection's group, which Postgres has and Kafka is told."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from libs.bus.kafka_source import KafkaSource
from libs.contracts.topics import Topic
from libs.storage.database import Pool
from services.projection import store
from services.projection.source import source_on
from tests.conformance.bus_harness import Harness, names, open_harness

Commit = Callable[[KafkaSource, Mapping[TopicPartition, int]], Awaitable[None]]


@pytest.fixture
async def harness(kafka: str, pool: Pool) -> AsyncIterator[Harness]:
    opened = await open_harness(kafka)
    opened.open_source = source_on(pool)
    yield opened
    await opened.close()


async def folded(pool: Pool, topic: Topic, *offsets: int) -> None:
    """As the transaction that folds has it, by partition."""
    async with pool.acquire() as connection:
        positions = {TopicPartition(topic.name, n): store.Position(at, at) for n, at in enumerate(offsets)}
        await store.write_positions(connection, positions)


async def test_a_partition_in_which_nothing_comes_any_more_is_committed_as_it_is_stored(
    harness: Harness, pool: Pool
) -> None:
    """As after a crash between the transaction and the commit."""
    topic, group = await harness.topic(partitions=3), harness.group()
    await harness.set_back(group, topic)
    await folded(pool, topic, 7, 5)
    stream = harness.stream([topic], group)
    await stream.start()
    assert await stream.getmany(timeout_ms=10, max_records=10) == []
    assert await harness.committed(group, topic) == [7, 5, 0]


async def test_what_could_not_be_committed_at_the_beginning_is_with_the_next_commit(
    harness: Harness, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, group = await harness.topic(partitions=2), harness.group()
    await harness.publish(topic, "one", "two")
    (one,) = [number for number in range(2) if await harness.stored(topic.name, number)]
    idle = 1 - one
    await folded(pool, topic, *(5 if number == idle else 0 for number in range(2)))
    tries: list[Mapping[TopicPartition, int]] = []
    commit: Commit = KafkaSource.commit

    async def failing_once(source: KafkaSource, offsets: Mapping[TopicPartition, int]) -> None:
        tries.append(offsets)
        if len(tries) == 1:
            raise KafkaError
        await commit(source, offsets)

    monkeypatch.setattr(KafkaSource, "commit", failing_once)
    stream = harness.stream([topic], group)
    await stream.start()
    records = []
    while len(records) < 2:
        records += await stream.getmany(timeout_ms=1000, max_records=10)
    assert names(records) == ["one", "two"]
    assert await harness.committed(group, topic) == [None, None]
    stream.finished(records)
    assert await stream.commit()
    committed = await harness.committed(group, topic)
    assert (committed[one], committed[idle]) == (2, 5)
    await harness.publish(topic, "three")
    while not (more := await stream.getmany(timeout_ms=1000, max_records=10)):
        pass
    stream.finished(more)
    assert await stream.commit()
    assert list(tries[-1]) == [TopicPartition(topic.name, one)]
