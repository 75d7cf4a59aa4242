"""The positions of the projection's group, which Postgres has and Kafka is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from structlog.testing import capture_logs

from libs.bus.kafka_source import KafkaSource
from libs.bus.record import Record
from libs.bus.stream import RecordStream
from libs.contracts.topics import Topic
from libs.storage.database import Pool, open_database
from services.projection import source, store
from services.projection.source import StoredOffsetsSource
from tests.conformance.bus_harness import Harness, names, open_harness
from tests.conftest import DatabaseFactory
from tests.silence import relay_to
from tests.waiting import until

Commit = Callable[[KafkaSource, Mapping[TopicPartition, int]], Awaitable[None]]


@pytest.fixture
async def harness(kafka: str, pool: Pool) -> AsyncIterator[Harness]:
    opened = await open_harness(kafka)
    opened.open_source = partial(StoredOffsetsSource, pool=pool)
    yield opened
    await opened.close()


async def folded(pool: Pool, topic: Topic, *offsets: int) -> None:
    """As the transaction that folds has it, by partition."""
    async with pool.acquire() as connection:
        positions = {TopicPartition(topic.name, n): store.Position(at, at) for n, at in enumerate(offsets)}
        await store.write_positions(connection, positions)


async def held(harness: Harness, topic: Topic) -> list[int]:
    """How many records Kafka has in each partition."""
    return [len(await harness.stored(topic.name, number)) for number in range(topic.partitions)]


async def read_some(stream: RecordStream) -> list[Record]:
    """The next records, as soon as there are any."""
    return await until(lambda: stream.getmany(timeout_ms=100, max_records=10))


async def test_a_partition_in_which_nothing_comes_any_more_is_committed_as_it_is_stored(
    harness: Harness, pool: Pool
) -> None:
    """As after a crash between the transaction and the commit."""
    topic, group = await harness.topic(partitions=3), harness.group()
    for person in range(10):
        await harness.publish(topic, "applied", person=str(person))
    applied = await held(harness, topic)
    await harness.set_back(group, topic)
    await folded(pool, topic, *applied)
    stream = harness.stream([topic], group)
    await stream.start()
    assert await stream.getmany(timeout_ms=10, max_records=10) == []
    assert await harness.committed(group, topic) == applied


async def test_what_kafka_has_lost_and_holds_anew_is_read_from_the_beginning(harness: Harness, pool: Pool) -> None:
    """As after a lost volume: what is stored is beyond the end, and would be passed over once there is as much again."""
    topic, group = await harness.topic(partitions=2), harness.group()
    await harness.publish(topic, "one", "two")
    await folded(pool, topic, 1_000, 1_000)
    stream = harness.stream([topic], group)
    await stream.start()
    with capture_logs() as logs:
        records = []
        while len(records) < 2:
            records += await stream.getmany(timeout_ms=1000, max_records=10)
    assert sorted(names(records)) == ["one", "two"]
    assert [entry["log_level"] for entry in logs if "kafka.records_lost" in entry["event"]] == ["error", "error"]
    async with pool.acquire() as connection:
        assert not await store.read_positions(connection)


async def test_what_kafka_holds_at_offsets_that_were_passed_is_read_from_the_beginning(
    harness: Harness, pool: Pool
) -> None:
    """As after a volume lost meanwhile: aiokafka goes back without a word, and there may soon be as much again."""
    topic, group = await harness.topic(), harness.group()
    await harness.publish(topic, "1", "2", "3")
    stream = harness.stream([topic], group)
    await stream.start()
    stream.finished(await read_some(stream))
    assert await stream.commit()
    consumer = cast(KafkaSource, stream._source)._consumer
    assert consumer is not None
    consumer.seek(TopicPartition(topic.name, 0), 1)
    assert names(await read_some(stream)) == ["1", "2", "3"]


async def test_what_a_former_owner_stores_meanwhile_is_not_taken_for_lost(
    harness: Harness, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, group = await harness.topic(), harness.group()
    await harness.publish(topic, "one")
    read = store.read_positions

    async def meanwhile(connection: store.Connection) -> dict[TopicPartition, store.Position]:
        monkeypatch.undo()
        await harness.publish(topic, "two")
        await folded(pool, topic, 2)
        return await read(connection)

    monkeypatch.setattr(store, "read_positions", meanwhile)
    stream = harness.stream([topic], group)
    await stream.start()
    assert await stream.getmany(timeout_ms=10, max_records=10) == []
    await harness.publish(topic, "three")
    assert names(await read_some(stream)) == ["three"]


async def test_partitions_that_are_taken_away_while_the_positions_are_read_stop_nothing(
    harness: Harness, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a gateway's new topic is found: aiokafka forgets the assignment at once, and joins anew."""
    topic, group = await harness.topic(), harness.group()
    await harness.publish(topic, "one")
    read = store.read_positions
    reads = 0

    async def meanwhile(connection: store.Connection) -> dict[TopicPartition, store.Position]:
        nonlocal reads
        reads += 1
        if reads == 1:
            monkeypatch.setattr(AIOKafkaConsumer, "assignment", lambda _: set())  # pyright: ignore[reportUnknownLambdaType]
        else:
            monkeypatch.undo()
        return await read(connection)

    monkeypatch.setattr(store, "read_positions", meanwhile)
    stream = harness.stream([topic], group)
    await stream.start()
    assert (names(await read_some(stream)), reads) == (["one"], 2)


async def test_partitions_that_are_assigned_anew_while_the_positions_are_read_are_gone_to_by_what_is_stored_then(
    harness: Harness, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, group = await harness.topic(), harness.group()
    await harness.publish(topic, "one", "two")
    stream = harness.stream([topic], group)
    read = store.read_positions

    async def assigned_anew(connection: store.Connection) -> dict[TopicPartition, store.Position]:
        monkeypatch.undo()
        before = await read(connection)
        await folded(pool, topic, 1)  # by who had them in between
        await cast(KafkaSource, stream._source).on_partitions_assigned(frozenset({TopicPartition(topic.name, 0)}))
        return before

    monkeypatch.setattr(store, "read_positions", assigned_anew)
    await stream.start()
    assert names(await read_some(stream)) == ["two"]


async def test_what_comes_from_where_kafka_believes_us_to_be_is_passed_over(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when partitions are assigned anew while records are waited for."""
    topic, group = await harness.topic(), harness.group()
    await harness.publish(topic, "one", "two")
    stream = harness.stream([topic], group)
    fetch: Any = AIOKafkaConsumer.getmany

    async def assigned_anew(consumer: AIOKafkaConsumer, *partitions: TopicPartition, **how: Any) -> Any:
        monkeypatch.undo()
        await cast(KafkaSource, stream._source).on_partitions_assigned(frozenset(partitions))
        consumer.seek(TopicPartition(topic.name, 0), 1)
        return await fetch(consumer, *partitions, **how)

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", assigned_anew)
    await stream.start()
    with capture_logs() as logs:
        assert names(await read_some(stream)) == ["one", "two"]
    assert not [entry for entry in logs if "kafka.records_lost" in entry["event"]]


async def test_positions_that_can_not_be_read_are_read_as_soon_as_postgres_is_back(
    harness: Harness, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, group = await harness.topic(), harness.group()
    await harness.publish(topic, "applied", "one")
    await folded(pool, topic, 1)

    async def away(_: store.Connection) -> dict[TopicPartition, store.Position]:
        monkeypatch.undo()
        raise ConnectionRefusedError

    monkeypatch.setattr(store, "read_positions", away)
    stream = harness.stream([topic], group)
    await stream.start()
    assert names(await read_some(stream)) == ["one"]


@pytest.mark.parametrize("error", [KafkaError, TimeoutError])
async def test_what_could_not_be_committed_at_the_beginning_is_with_the_next_commit(
    harness: Harness, pool: Pool, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    topic, group = await harness.topic(partitions=2), harness.group()
    for person in range(10):
        await harness.publish(topic, "applied", person=str(person))
    applied = await held(harness, topic)
    assert all(applied)
    await harness.publish(topic, "one", "two")
    (one,) = [number for number, count in enumerate(await held(harness, topic)) if count > applied[number]]
    idle = 1 - one
    await folded(pool, topic, *applied)
    tries: list[Mapping[TopicPartition, int]] = []
    commit: Commit = KafkaSource._commit_to_kafka

    async def failing_once(source: KafkaSource, offsets: Mapping[TopicPartition, int]) -> None:
        tries.append(offsets)
        if len(tries) == 1:
            raise error
        await commit(source, offsets)

    monkeypatch.setattr(KafkaSource, "_commit_to_kafka", failing_once)
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
    assert (committed[one], committed[idle]) == (applied[one] + 2, applied[idle])
    await harness.publish(topic, "three")
    stream.finished(await read_some(stream))
    assert await stream.commit()
    assert list(tries[-1]) == [TopicPartition(topic.name, one)]


async def test_a_commit_does_not_wait_as_long_for_a_silent_postgres_as_a_statement_may_take(
    kafka: str, postgres: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "POSTGRES_SECONDS", 0.5)
    relay = await relay_to(await postgres())
    pool = await open_database(relay.dsn, store.SCHEMA, store.MIGRATIONS, 1)
    harness = await open_harness(kafka)
    harness.open_source = partial(StoredOffsetsSource, pool=pool)
    topic = await harness.topic()
    await harness.publish(topic, "applied")
    stream = harness.stream([topic])
    await stream.start()
    stream.finished(await read_some(stream))
    relay.fall_silent()
    async with asyncio.timeout(25):
        assert not await stream.commit()
    await stream.stop()
    await harness.close()
    pool.terminate()
    relay.listening.close()
