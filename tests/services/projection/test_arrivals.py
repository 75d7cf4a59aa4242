"""Whether the outbox has come as far as Kafka had when somebody asked."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import TopicPartition

from libs.bus.offsets_reader import OffsetsReader
from libs.contracts.topics import REQUESTED, REQUESTED_HIGH
from libs.service_kit.kafka import Cluster
from libs.storage.database import Pool
from services.projection import store
from services.projection.arrivals import Arrivals
from services.projection.store import Position
from tests.waiting import until

NORMAL, HIGH = TopicPartition(REQUESTED.name, 1), TopicPartition(REQUESTED_HIGH.name, 2)


class Kafka:
    """Where its partitions begin and end, as the test says; empty unless it says so."""

    def __init__(self) -> None:
        self.begins: dict[TopicPartition, int] = {}
        self.ends: dict[TopicPartition, int] = {}
        self.asked = 0
        self.away = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def ask(self, _: OffsetsReader, question: Callable[[Any], Awaitable[Any]]) -> Any:
        self.asked += 1
        answer, away = await question(self), self.away
        await self.may_answer.wait()
        if away:
            raise KafkaConnectionError
        return answer

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: self.begins.get(partition, 0) for partition in partitions}

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: self.ends.get(partition, 0) for partition in partitions}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    made = Kafka()
    monkeypatch.setattr(OffsetsReader, "ask", lambda reader, question: made.ask(reader, question))
    return made


@pytest.fixture
def arrivals(cluster: Kafka, pool: Pool) -> Arrivals:
    return Arrivals(Cluster("127.0.0.1:1"), pool)


async def test_kafka_is_passed_once_all_that_it_held_of_either_priority_is_applied(
    arrivals: Arrivals, cluster: Kafka, pool: Pool
) -> None:
    async def passed(partition: TopicPartition, next_offset: int, reached: int) -> bool:
        async with pool.acquire() as connection:
            await store.write_positions(connection, {partition: Position(next_offset, reached)})
        return await arrivals.passed(ends)

    cluster.ends = {NORMAL: 3, HIGH: 2}
    ends = await arrivals.ends()
    assert not await arrivals.passed(ends)
    assert not await passed(NORMAL, 4, 4)
    assert not await passed(HIGH, 1, 2), "one of them waits for others of its message"
    assert await passed(HIGH, 2, 2)


async def test_what_is_past_its_retention_is_not_waited_for(arrivals: Arrivals, cluster: Kafka) -> None:
    cluster.begins = cluster.ends = {NORMAL: 7}
    assert await arrivals.passed(await arrivals.ends())


async def test_an_answer_is_of_after_it_was_asked_for_and_who_asks_meanwhile_shares_the_next(
    arrivals: Arrivals, cluster: Kafka
) -> None:
    cluster.may_answer.clear()
    cluster.ends = {NORMAL: 1}
    first = asyncio.create_task(arrivals.ends())
    await until(lambda: cluster.asked == 1)
    cluster.ends = {NORMAL: 2}
    others = [asyncio.create_task(arrivals.ends()) for _ in range(3)]
    await asyncio.sleep(0)
    cluster.may_answer.set()
    assert await first == {NORMAL: 1}
    assert [await other for other in others] == [{NORMAL: 2}] * 3
    assert cluster.asked == 2


async def test_who_gives_up_takes_the_answer_from_nobody_else(arrivals: Arrivals, cluster: Kafka) -> None:
    cluster.may_answer.clear()
    cluster.ends = {NORMAL: 1}
    impatient, patient = (asyncio.create_task(arrivals.ends()) for _ in range(2))
    await until(lambda: cluster.asked == 1)
    impatient.cancel()
    cluster.may_answer.set()
    assert await patient == {NORMAL: 1}


async def test_who_asks_while_a_question_fails_gets_an_answer_of_their_own(arrivals: Arrivals, cluster: Kafka) -> None:
    cluster.may_answer.clear()
    cluster.ends = {NORMAL: 1}
    cluster.away = True
    first = asyncio.create_task(arrivals.ends())
    await until(lambda: cluster.asked == 1)
    cluster.away = False
    second = asyncio.create_task(arrivals.ends())
    await asyncio.sleep(0)
    cluster.may_answer.set()
    with pytest.raises(KafkaConnectionError):
        await first
    assert await second == {NORMAL: 1}


async def test_a_failure_that_nobody_waits_for_any_more_is_no_unhandled_error(
    arrivals: Arrivals, cluster: Kafka
) -> None:
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    cluster.may_answer.clear()
    cluster.away = True
    impatient = asyncio.create_task(arrivals.ends())
    await until(lambda: cluster.asked == 1)
    impatient.cancel()
    cluster.may_answer.set()
    cluster.away = False
    await arrivals.ends()
    gc.collect()
    assert unhandled == []
