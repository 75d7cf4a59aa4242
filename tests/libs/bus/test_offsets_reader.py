"""Who asks for offsets, when one question gets no answer."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError

from deploy.local.ports import free_port
from libs.bus.offsets_reader import OffsetsReader
from libs.service_kit.kafka import Cluster


async def test_after_a_question_without_an_answer_the_next_is_asked_by_a_new_consumer(kafka: str) -> None:
    reader, asked = OffsetsReader(Cluster(kafka), client_id="test", seconds=5), list[AIOKafkaConsumer]()

    async def ask(consumer: AIOKafkaConsumer) -> None:
        asked.append(consumer)
        if len(asked) == 3:
            raise KafkaConnectionError

    await reader.start()
    for _ in range(2):
        await reader.ask(ask)
    with pytest.raises(KafkaConnectionError):
        await reader.ask(ask)
    await reader.ask(ask)
    first, second, third, fourth = asked
    assert first is second is third is not fourth
    await reader.stop()


async def test_a_question_takes_no_longer_than_it_may(kafka: str) -> None:
    reader, asked = OffsetsReader(Cluster(kafka), client_id="test", seconds=2), list[AIOKafkaConsumer]()

    async def never(consumer: AIOKafkaConsumer) -> None:
        asked.append(consumer)
        await asyncio.Event().wait()

    await reader.start()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await reader.ask(never)
    assert asked[0] is not asked[1]
    await reader.stop()


async def test_while_nobody_is_there_it_says_so() -> None:
    reader = OffsetsReader(Cluster(f"127.0.0.1:{free_port()}"), client_id="test", seconds=5)
    with pytest.raises(KafkaConnectionError):
        await reader.ask(lambda consumer: consumer.end_offsets([]))
    await reader.stop()
