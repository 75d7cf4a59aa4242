"""FastStream's traps, each shown to be closed on a real broker."""

import asyncio
from functools import partial

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from deploy.local.ports import free_port
from libs.bus import event_consumer
from libs.bus.dead_letters import DeadLetters
from libs.bus.errors import BadRecord
from libs.bus.event_consumer import EventConsumer, EventHandler
from libs.bus.port import Outgoing
from libs.contracts.events import ContactChanged, Event, Reason
from libs.contracts.topics import Topic
from libs.service_kit.kafka import Cluster
from tests.conformance.bus_harness import Harness, change
from tests.waiting import until


class Seen:
    def __init__(self) -> None:
        self.names: list[str | None] = []

    async def __call__(self, event: Event[ContactChanged]) -> None:
        self.names.append(event.data.name)


async def started(bus: Harness, topic: Topic, group: str, handler: EventHandler) -> EventConsumer:
    consumer = EventConsumer(bus.cluster, topic, group, handler, bus.producer)
    bus.running.append(consumer)
    await consumer.start()
    return consumer


@pytest.fixture
def at_most_three_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_consumer, "DeadLetters", partial(DeadLetters, limit=3))


async def test_each_event_is_handled_in_order_and_committed(bus: Harness) -> None:
    topic, group, seen = await bus.topic(), bus.group(), Seen()
    await bus.publish(topic, "1", "2", "3")
    consumer = await started(bus, topic, group, seen)
    await until(lambda: len(seen.names) == 3)
    assert consumer.ready
    await consumer.stop()
    assert seen.names == ["1", "2", "3"]
    assert await bus.committed(group, topic) == [3]
    assert consumer.state == "stopped"


async def test_of_several_brokers_that_are_named_any_will_do(bus: Harness) -> None:
    topic, seen = await bus.topic(), Seen()
    await bus.publish(topic, "1")
    nobody = f"127.0.0.1:{free_port()}"
    consumer = EventConsumer(Cluster(f"{nobody}, {bus.bootstrap}"), topic, bus.group(), seen, bus.producer)
    bus.running.append(consumer)
    await consumer.start()
    await until(lambda: seen.names == ["1"])


async def test_nothing_is_committed_before_the_handler_has_returned(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    entered, let_go = asyncio.Event(), asyncio.Event()

    async def handle(event: Event[ContactChanged]) -> None:
        entered.set()
        await let_go.wait()

    await bus.publish(topic, "1")
    consumer = await started(bus, topic, group, handle)
    await entered.wait()
    assert await bus.committed(group, topic) == [None]
    stopping = asyncio.create_task(consumer.stop())
    let_go.set()
    await stopping
    assert await bus.committed(group, topic) == [1]


async def test_stop_does_not_wait_beyond_its_budget_and_commits_nothing_unfinished(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    entered = asyncio.Event()

    async def handle(event: Event[ContactChanged]) -> None:
        entered.set()
        await asyncio.Event().wait()

    await bus.publish(topic, "1")
    consumer = await started(bus, topic, group, handle)
    await entered.wait()
    async with asyncio.timeout(5):
        await consumer.stop(budget_seconds=0.1)
    assert await bus.committed(group, topic) == [None]


async def test_a_body_that_is_no_event_goes_to_the_dead_letters_once_and_is_committed(bus: Harness) -> None:
    topic, group, seen = await bus.topic(), bus.group(), Seen()
    await bus.producer.publish(topic.name, [(b"k", b"{not json"), (b"k", None), change("good")])
    consumer = await started(bus, topic, group, seen)
    await until(lambda: seen.names == ["good"])
    await consumer.stop()
    assert await bus.committed(group, topic) == [3]
    letters = await bus.dead_letters(topic)
    assert [letter.value for letter in letters] == [b"{not json", None]
    headers = dict(letters[0].headers)
    assert headers["content-type"] == b"application/cloudevents+json"
    assert (headers["dead-letter-reason"], headers["dead-letter-group"]) == (b"undecodable", group.encode())


@pytest.mark.parametrize("value", [b"\xff", None])
async def test_headers_that_are_no_text_lose_nothing(bus: Harness, value: bytes | None) -> None:
    topic, group, seen = await bus.topic(), bus.group(), Seen()
    odd = [("odd", value)]
    (key, event) = change("1")
    await bus.producer.publish_many([Outgoing(topic.name, key, event, odd), Outgoing(topic.name, key, b"bad", odd)])
    await bus.publish(topic, "2")
    consumer = await started(bus, topic, group, seen)
    await until(lambda: "2" in seen.names)
    await consumer.stop()
    assert seen.names == ["1", "2"]
    (letter,) = await bus.dead_letters(topic)
    assert dict(letter.headers)["odd"] == value


@pytest.mark.usefixtures("at_most_three_dead_letters")
async def test_tombstones_are_kept_as_dead_letters_and_stop_nobody(bus: Harness) -> None:
    topic, group, seen = await bus.topic(), bus.group(), Seen()
    await bus.producer.publish_many([Outgoing(topic.name, b"t/client/17", None)] * 5)
    await bus.publish(topic, "1")
    consumer = await started(bus, topic, group, seen)
    await until(lambda: seen.names == ["1"])
    assert consumer.ready
    assert {dict(letter.headers)["dead-letter-reason"] for letter in await bus.dead_letters(topic)} == {b"tombstone"}


async def test_what_a_transaction_takes_back_is_not_handled(bus: Harness) -> None:
    topic, group, seen = await bus.topic(), bus.group(), Seen()
    async with AIOKafkaProducer(bootstrap_servers=bus.bootstrap, transactional_id=group) as upstream:
        await upstream.begin_transaction()
        key, value = change("taken back")
        await upstream.send_and_wait(topic.name, key=key, value=value)
        await upstream.abort_transaction()
        async with upstream.transaction():
            key, value = change("committed")
            await upstream.send_and_wait(topic.name, key=key, value=value)
    consumer = await started(bus, topic, group, seen)
    await until(lambda: "committed" in seen.names)
    await consumer.stop()
    assert seen.names == ["committed"]


async def test_a_fault_of_ours_stops_the_subscriber_and_is_told(bus: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    topic, group, seen = await bus.topic(), bus.group(), Seen()

    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(DeadLetters, "send", fails)
    await bus.producer.publish(topic.name, [(b"k", b"bad")])
    consumer = await started(bus, topic, group, seen)
    await until(lambda: consumer.state == "stopped: RuntimeError")
    await consumer.stop()
    assert await bus.committed(group, topic) == [None]


async def test_an_event_that_can_not_be_handled_goes_to_the_dead_letters(bus: Harness) -> None:
    topic, group, seen = await bus.topic(), bus.group(), Seen()

    async def handle(event: Event[ContactChanged]) -> None:
        if event.data.name == "bad":
            raise BadRecord(Reason("no-such-person", "The person is unknown"))
        if event.data.name == "broken":
            raise KeyError("+4915112345678")
        await seen(event)

    await bus.publish(topic, "1", "bad", "2", "broken", "3")
    await started(bus, topic, group, handle)
    await until(lambda: seen.names == ["1", "2", "3"])
    bad, broken = [dict(letter.headers) for letter in await bus.dead_letters(topic)]
    assert (bad["dead-letter-offset"], bad["dead-letter-reason"]) == (b"1", b"no-such-person")
    assert bad["dead-letter-words"] == b"The person is unknown"
    assert (broken["dead-letter-offset"], broken["dead-letter-reason"]) == (b"3", b"handler-error")
    assert broken["dead-letter-words"].startswith(b"KeyError in test_event_consumer.py:")


async def test_while_a_neighbour_is_away_the_event_is_tried_again_in_place(bus: Harness) -> None:
    topic, group, seen = await bus.topic(), bus.group(), Seen()
    failures = iter([ConnectionRefusedError(), TimeoutError()])
    tried: list[str | None] = []

    async def handle(event: Event[ContactChanged]) -> None:
        tried.append(event.data.name)
        for failure in failures:
            raise failure
        await seen(event)

    await bus.publish(topic, "1", "2")
    with capture_logs() as logs:
        consumer = await started(bus, topic, group, handle)
        await until(lambda: len(seen.names) == 2)
    await consumer.stop()
    assert tried == ["1", "1", "1", "2"]
    assert [line["attempt"] for line in logs if line["event"] == "retry"] == [1, 2], "each later than the one before"
    assert await bus.dead_letters(topic) == []
    assert await bus.committed(group, topic) == [2]


async def test_an_event_given_up_while_a_neighbour_is_away_comes_again(bus: Harness) -> None:
    topic, group, seen = await bus.topic(), bus.group(), Seen()
    tried: list[str | None] = []

    async def fail(event: Event[ContactChanged]) -> None:
        tried.append(event.data.name)
        raise ConnectionRefusedError

    await bus.publish(topic, "1")
    first = await started(bus, topic, group, fail)
    await until(lambda: tried)
    await first.stop()
    assert await bus.committed(group, topic) == [None]
    await started(bus, topic, group, seen)
    await until(lambda: seen.names == ["1"])


@pytest.mark.usefixtures("at_most_three_dead_letters")
async def test_a_run_of_failures_stops_the_subscriber_and_leaves_the_rest_uncommitted(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    tried: list[str | None] = []

    async def handle(event: Event[ContactChanged]) -> None:
        tried.append(event.data.name)
        if event.data.name != "good":
            raise KeyError

    await bus.publish(topic, "bad", "bad", "good", *(f"bad {n}" for n in range(10)))
    consumer = await started(bus, topic, group, handle)
    await until(lambda: consumer.state == "stopped: too many dead letters")
    assert not consumer.ready
    await consumer.stop()
    assert len(await bus.dead_letters(topic)) == 2 + 3
    assert await bus.committed(group, topic) == [6]
    assert tried == ["bad", "bad", "good", "bad 0", "bad 1", "bad 2", "bad 3"]


async def test_while_kafka_says_nothing_the_consumer_is_not_ready_and_shows_no_lag(
    bus: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_consumer, "LAG_EVERY_SECONDS", 0.01)
    topic, seen = await bus.topic(), Seen()

    def lag() -> float | None:
        return REGISTRY.get_sample_value("postrider_consumer_lag_records", {"topic": topic.name, "partition": "0"})

    async def away(*_: object) -> None:
        raise KafkaConnectionError

    await bus.publish(topic, "1")
    consumer = await started(bus, topic, bus.group(), seen)
    await until(lambda: consumer.ready and seen.names and lag() == 0)
    with monkeypatch.context() as patch:
        patch.setattr(AIOKafkaConsumer, "end_offsets", away)
        await until(lambda: consumer.state == "waiting for Kafka: KafkaConnectionError")
        assert not consumer.ready
        assert lag() is None
    await until(lambda: consumer.ready and lag() == 0)


async def test_while_kafka_lacks_the_topic_the_consumer_is_not_ready(
    bus: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_consumer, "LAG_EVERY_SECONDS", 0.01)
    topic, seen = await bus.topic(), Seen()
    await bus.publish(topic, "1")
    consumer = await started(bus, topic, bus.group(), seen)
    await until(lambda: consumer.ready and seen.names)
    with monkeypatch.context() as lost:
        lost.setattr(AIOKafkaConsumer, "partitions_for_topic", lambda *_: None)
        await until(lambda: consumer.state == "waiting for Kafka: UnknownTopicOrPartitionError")
        assert not consumer.ready
    await until(lambda: consumer.ready)


async def test_a_missing_topic_is_waited_for_and_not_created(bus: Harness) -> None:
    topic, group, seen = bus.undeclared(partitions=2), bus.group(), Seen()
    consumer = await started(bus, topic, group, seen)
    admin = AIOKafkaAdminClient(bootstrap_servers=bus.bootstrap)
    await admin.start()
    await asyncio.sleep(0.5)
    assert topic.name not in await admin.list_topics()
    await admin.close()
    assert consumer.state == "starting"
    await bus.declare(topic)
    await bus.publish(topic, "1")
    await until(lambda: seen.names == ["1"])


async def test_a_rebalance_waits_for_the_event_in_hand(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    entered, let_go = asyncio.Event(), asyncio.Event()
    handled: list[str | None] = []

    async def handle(event: Event[ContactChanged]) -> None:
        entered.set()
        await let_go.wait()
        handled.append(event.data.name)

    await bus.publish(topic, "1")
    first = await started(bus, topic, group, handle)
    await entered.wait()
    newcomer = await started(bus, topic, group, handle)
    await until(first._give_up.is_set)  # the rebalance has come to the first
    await asyncio.sleep(0.2)
    assert not newcomer.ready
    let_go.set()
    await until(lambda: newcomer.ready)
    await bus.publish(topic, "2")
    await until(lambda: "2" in handled)
    assert handled == ["1", "2"]
