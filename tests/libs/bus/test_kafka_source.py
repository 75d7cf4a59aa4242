"""What only a member of a group on a real Kafka can get wrong."""

import asyncio

from libs.bus.kafka_source import KafkaSource
from libs.bus.port import Partitions
from libs.bus.producer import Producer
from tests.conformance.bus_harness import Harness, eventually


async def test_who_stops_while_giving_partitions_back_leaves_the_group_all_the_same(kafka: str) -> None:
    harness = Harness(kafka, Producer(kafka, "test"), KafkaSource)
    topic, group = await harness.topic(partitions=2), harness.group()
    giving_back = asyncio.Event()

    async def give_back(_: Partitions) -> None:
        giving_back.set()
        await asyncio.Event().wait()

    leaving = harness.stream([topic], group, on_revoked=give_back, rebalance_timeout_ms=120_000)
    await leaving.start()
    await eventually(lambda: len(leaving.assignment()) == 2)
    staying = harness.stream([topic], group, rebalance_timeout_ms=120_000)
    joining = asyncio.create_task(staying.start())
    await giving_back.wait()
    await leaving.stop()
    harness.running.remove(leaving)
    async with asyncio.timeout(30):
        await joining
    assert len(staying.assignment()) == 2
    await harness.close()
