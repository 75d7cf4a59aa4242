"""Kafka goes away and comes back: nothing is lost, nothing hangs, order holds."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.kafka import SHORT_RUN, Kafka
from libs.bus.errors import PublishFailed
from libs.bus.event_consumer import EventConsumer, EventHandler
from libs.bus.kafka_source import KafkaSource
from libs.bus.producer import Producer
from libs.service_kit.kafka import Cluster
from tests.conformance.bus_harness import Handled, Harness, change, open_harness
from tests.waiting import until


@pytest.fixture(scope="module")
async def broker() -> AsyncIterator[Kafka]:
    """One of our own, to be killed. The first test starts it."""
    directory = Path(tempfile.mkdtemp(prefix="postrider-outage-"))
    kafka = Kafka(directory, java_options=SHORT_RUN)
    yield kafka
    await kafka.stop()
    shutil.rmtree(directory)


async def test_everything_starts_before_kafka_and_survives_its_death(broker: Kafka) -> None:
    early = Producer(Cluster(broker.bootstrap_servers), "early")
    starting = asyncio.create_task(early.start())
    handled = Handled()
    harness = Harness(Cluster(broker.bootstrap_servers), early, KafkaSource)
    topic, group = harness.undeclared(), harness.group()
    consumer = harness.consumer([topic], handled, group)
    await consumer.start()
    declaring = asyncio.create_task(harness.declare(topic))
    seen = asyncio.Event()
    events = EventConsumer(Cluster(broker.bootstrap_servers), topic, harness.group(), _tell(seen), early)
    await events.start()
    await asyncio.sleep(0.5)
    assert events.state == "starting"
    assert (starting.done(), declaring.done(), consumer.state) == (False, False, "starting")

    await broker.start()
    await asyncio.gather(starting, declaring)
    await harness.publish(topic, "before")
    await until(lambda: handled.names == ["before"])

    await seen.wait()
    await events.stop()

    await broker.kill()
    impatient = Producer(Cluster(broker.bootstrap_servers), "impatient", delivery_timeout=1)
    with pytest.raises(PublishFailed):
        await impatient.publish(topic.name, [change("never")])
    during = [asyncio.create_task(harness.publish(topic, f"{n}a", f"{n}b")) for n in range(5)]
    await asyncio.sleep(1)
    assert not any(call.done() for call in during)

    await broker.start()
    await asyncio.gather(*during)
    await harness.publish(topic, "after")
    expected = ["before", *(f"{n}{half}" for n in range(5) for half in "ab"), "after"]
    await until(lambda: handled.names[-1:] == ["after"], within=40)
    assert list(dict.fromkeys(handled.names)) == expected
    await consumer.stop()
    await impatient.stop()
    assert await harness.committed(group, topic) == [len(expected)]
    assert [record.value for record in await harness.stored(topic.name)] == [change(name)[1] for name in expected]
    await harness.close()


async def test_a_call_given_up_during_an_outage_is_published_by_its_repeat_and_memory_stays_bounded(
    broker: Kafka,
) -> None:
    if broker.pid is None:
        await broker.start()
    harness = await open_harness(broker.bootstrap_servers)
    topic = await harness.topic()
    producer = Producer(Cluster(broker.bootstrap_servers), "test", delivery_timeout=0.3)
    await producer.publish(topic.name, [(b"k", b"0")])
    await broker.kill()
    for _ in range(5):
        with pytest.raises(PublishFailed, match=f"^{topic.name}: not acknowledged within 0.3 s"):
            await producer.publish(topic.name, [(b"k", b"1")])
    (lane,) = producer._lanes.values()
    assert len(lane._queue) <= 2
    assert producer._buffered == 0
    await broker.start()
    for _ in range(100):
        try:
            await producer.publish(topic.name, [(b"k", b"1")])
            break
        except PublishFailed:
            continue
    values = [record.value for record in await harness.stored(topic.name)]
    assert list(dict.fromkeys(values)) == [b"0", b"1"]
    assert len(values) <= 4
    await producer.stop()
    await harness.close()


def _tell(seen: asyncio.Event) -> EventHandler:
    async def handle(event: object) -> None:
        seen.set()

    return handle
