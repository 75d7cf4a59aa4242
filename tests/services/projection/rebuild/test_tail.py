"""Whom the records are about that were applied since a moment."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaTimeoutError
from aiokafka.structs import TopicPartition

from libs.bus.codec import encode
from libs.service_kit.kafka import Cluster
from services.projection.rebuild import tail as tails
from services.projection.rebuild.tail import Tail, open_tail
from services.projection.store import Position
from tests.conformance.bus_harness import open_harness
from tests.services.projection.stories import Story

STORIES = [Story(number) for number in range(1, 5)]
ONE, TWO, THREE, FOUR = (story.id for story in STORIES)


@pytest.fixture
async def partition(kafka: str) -> AsyncIterator[TopicPartition]:
    """One that holds a record about each."""
    harness = await open_harness(kafka)
    topic = await harness.topic()
    await harness.producer.publish(topic.name, [(b"17", encode(story.requested().event)) for story in STORIES])
    yield TopicPartition(topic.name, 0)
    await harness.close()


async def about(tail: Tail, partition: TopicPartition, next_offset: int, reached: int) -> set[UUID]:
    """When so much is applied."""
    return {found async for batch in tail.message_ids({partition: Position(next_offset, reached)}) for found in batch}


async def test_what_lies_beyond_what_is_applied_without_a_gap_is_looked_at_again(
    kafka: str, partition: TopicPartition
) -> None:
    """Of two records one was applied; the other, which waited for others of its message, may have been since."""
    async with open_tail(Cluster(kafka), {partition: Position(1, 3)}) as tail:
        assert tail.behind({partition: Position(2, 3)}) == 2
        assert await about(tail, partition, 2, 3) >= {TWO, THREE}
        assert await about(tail, partition, 4, 4) == {THREE, FOUR}
        assert await about(tail, partition, 4, 4) == set()
        assert tail.behind({partition: Position(4, 4)}) == 0


async def test_a_partition_that_comes_to_be_later_is_read_from_its_beginning(
    kafka: str, partition: TopicPartition
) -> None:
    async with open_tail(Cluster(kafka), {}) as tail:
        assert await about(tail, partition, 4, 4) == {ONE, TWO, THREE, FOUR}


async def test_what_kafka_does_not_have_any_more_is_not_waited_for(
    kafka: str, partition: TopicPartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "FETCH_MILLISECONDS", 1_000)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.delete_records({partition: RecordsToDelete(before_offset=2)})
    await admin.close()
    async with open_tail(Cluster(kafka), {partition: Position(1, 1)}) as tail:
        assert await about(tail, partition, 1_000, 1_000) == {THREE, FOUR}


async def test_what_kafka_has_and_does_not_give_is_not_taken_for_read(
    kafka: str, partition: TopicPartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object, **__: object) -> dict[TopicPartition, object]:
        return {}

    async with open_tail(Cluster(kafka), {}) as tail:
        with monkeypatch.context() as patch:
            patch.setattr(AIOKafkaConsumer, "getmany", nothing)
            with pytest.raises(KafkaTimeoutError):
                await about(tail, partition, 4, 4)
        assert await about(tail, partition, 4, 4) == {ONE, TWO, THREE, FOUR}
