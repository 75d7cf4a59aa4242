"""FastStream's traps, each shown to be closed on a real broker."""

import asyncio

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from deploy.local.ports import free_port
from libs.bus.dead_letters import DeadLetters
from libs.bus.errors import BadRecord
from libs.bus.faststream_app import EventHandler, FastStreamApp
from libs.bus.port import Outgoing
from libs.bus.record import Record
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


async def started(bus: Harness, topic: Topic, group: str, handler: EventHandler, limit: int = 20) -> FastStreamApp:
    app = FastStreamApp(bus.cluster, "test", bus.producer)
    app.subscribe(topic, group, handler, dead_letter_limit=limit)
    bus.running.append(app)
    await app.start()
    return app


async def test_each_event_is_handled_in_order_and_committed(bus: Harness) -> None:
    topic, group, seen = await bus.topic(), bus.group(), Seen()
    await bus.publish(topic, "1", "2", "3")
    app = await started(bus, topic, group, seen)
    await until(lambda: len(seen.names) == 3)
    assert app.ready
    await app.stop()
    assert seen.names == ["1", "2", "3"]
    assert await bus.committed(group, topic) == [3]
    assert app.state == "stopped"


async def test_of_several_brokers_that_are_named_any_will_do(bus: Harness) -> None:
    topic, seen = await bus.topic(), Seen()
    await bus.publish(topic, "1")
    nobody = f"127.0.0.1:{free_port()}"
    app = FastStreamApp(Cluster(f"{nobody}, {bus.bootstrap}"), "test", bus.producer)
    app.subscribe(topic, bus.group(), seen)
    bus.running.append(app)
    await app.start()
    await until(lambda: seen.names == ["1"])


async def test_nothing_is_committed_before_the_handler_has_returned(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    entered, let_go = asyncio.Event(), asyncio.Event()

    async def handle(event: Event[ContactChanged]) -> None:
        entered.set()
        await let_go.wait()

    await bus.publish(topic, "1")
    app = await started(bus, topic, group, handle)
    await entered.wait()
    assert await bus.committed(group, topic) == [None]
    stopping = asyncio.create_task(app.stop())
    let_go.set()
    await stopping
    assert await bus.committed(group, topic) == [1]


async def test_a_body_that_is_no_event_goes_to_the_dead_letters_once_and_is_committed(bus: Harness) -> None:
    topic, group, seen = await bus.topic(), bus.group(), Seen()
    await bus.producer.publish(topic.name, [(b"k", b"{not json"), (b"k", None), change("good")])
    app = await started(bus, topic, group, seen)
    await until(lambda: seen.names == ["good"])
    await app.stop()
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
    app = await started(bus, topic, group, seen)
    await until(lambda: "2" in seen.names)
    await app.stop()
    assert seen.names == ["1", "2"]
    (letter,) = await bus.dead_letters(topic)
    assert dict(letter.headers)["odd"] == value


async def test_tombstones_are_kept_as_dead_letters_and_stop_nobody(bus: Harness) -> None:
    topic, group, seen = await bus.topic(), bus.group(), Seen()
    await bus.producer.publish_many([Outgoing(topic.name, b"t/client/17", None)] * 5)
    await bus.publish(topic, "1")
    app = await started(bus, topic, group, seen, limit=3)
    await until(lambda: seen.names == ["1"])
    assert app.ready
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
    app = await started(bus, topic, group, seen)
    await until(lambda: "committed" in seen.names)
    await app.stop()
    assert seen.names == ["committed"]


async def test_a_fault_of_ours_stops_the_subscriber_and_is_told(bus: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    topic, group, seen = await bus.topic(), bus.group(), Seen()

    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(DeadLetters, "send", fails)
    await bus.producer.publish(topic.name, [(b"k", b"bad")])
    app = await started(bus, topic, group, seen)
    await until(lambda: app.state == "stopped: RuntimeError")
    await app.stop()
    assert await bus.committed(group, topic) == [None]


async def test_an_event_that_can_not_be_handled_goes_to_the_dead_letters_and_the_service_hears_of_it(
    bus: Harness,
) -> None:
    topic, group = await bus.topic(), bus.group()
    heard: list[tuple[int, Reason]] = []

    async def handle(event: Event[ContactChanged]) -> None:
        if event.data.name == "bad":
            raise BadRecord(Reason("no-such-person", "The person is unknown"))
        if event.data.name == "broken":
            raise KeyError("+4915112345678")

    async def on_dead_letter(record: Record, reason: Reason) -> None:
        heard.append((record.offset, reason))

    await bus.publish(topic, "1", "bad", "2", "broken")
    app = FastStreamApp(bus.cluster, "test", bus.producer)
    app.subscribe(topic, group, handle, on_dead_letter=on_dead_letter)
    bus.running.append(app)
    await app.start()
    await until(lambda: len(heard) == 2)
    assert heard[0] == (1, Reason("no-such-person", "The person is unknown"))
    assert heard[1][0] == 3
    assert heard[1][1].code == "handler-error"
    assert heard[1][1].words.startswith("KeyError in test_faststream_app.py:")
    assert len(await bus.dead_letters(topic)) == 2


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
    app = await started(bus, topic, group, handle)
    await until(lambda: len(seen.names) == 2)
    await app.stop()
    assert tried == ["1", "1", "1", "2"]
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


async def test_a_run_of_failures_stops_the_subscriber_and_leaves_the_rest_uncommitted(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    tried: list[str | None] = []

    async def handle(event: Event[ContactChanged]) -> None:
        tried.append(event.data.name)
        if event.data.name != "good":
            raise KeyError

    await bus.publish(topic, "good", *(f"bad {n}" for n in range(10)))
    app = await started(bus, topic, group, handle, limit=3)
    await until(lambda: app.state == "stopped: too many dead letters")
    assert not app.ready
    await app.stop()
    assert len(await bus.dead_letters(topic)) == 3
    assert await bus.committed(group, topic) == [4]
    assert tried == ["good", "bad 0", "bad 1", "bad 2", "bad 3"]


async def test_a_missing_topic_is_waited_for_and_not_created(bus: Harness) -> None:
    topic, group, seen = bus.undeclared(partitions=2), bus.group(), Seen()
    app = await started(bus, topic, group, seen)
    admin = AIOKafkaAdminClient(bootstrap_servers=bus.bootstrap)
    await admin.start()
    await asyncio.sleep(0.5)
    assert topic.name not in await admin.list_topics()
    await admin.close()
    assert app.state == "starting"
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
    (subscription,) = first._subscriptions
    newcomer = await started(bus, topic, group, handle)
    await until(subscription.give_up.is_set)  # the rebalance has come to the first
    await asyncio.sleep(0.2)
    assert not newcomer.ready
    let_go.set()
    await until(lambda: newcomer.ready)
    await bus.publish(topic, "2")
    await until(lambda: "2" in handled)
    assert handled == ["1", "2"]
