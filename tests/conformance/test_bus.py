"""What every service may rely on, held by the real broker and by the one in memory alike."""

import asyncio

from libs.bus.batch import Batch
from libs.bus.errors import PublishFailed
from libs.bus.port import Outgoing, TopicFamily
from tests.conformance.bus_harness import Handled, Harness, change, names
from tests.waiting import until

# order


async def test_records_of_one_key_keep_the_order_of_the_calls_also_when_these_run_at_once(bus: Harness) -> None:
    topic = await bus.topic(partitions=4)
    calls = [bus.publish(topic, f"{n}a", f"{n}b", person=str(n % 3)) for n in range(60)]
    await asyncio.gather(*calls)
    handled = Handled()
    await bus.consumer([topic], handled).start()
    await until(lambda: len(handled.names) == 120)
    for person in range(3):
        of_person = [name for name in handled.names if int(name[:-1]) % 3 == person]
        assert of_person == [f"{n}{half}" for n in range(person, 60, 3) for half in "ab"]


async def test_records_without_a_key_go_round_the_partitions(bus: Harness) -> None:
    topic = await bus.topic(partitions=3)
    for n in range(6):
        await bus.producer.publish(topic.name, [(None, change(str(n))[1])])
    assert [len(await bus.stored(topic.name, partition)) for partition in range(3)] == [2, 2, 2]


async def test_a_record_says_that_it_is_a_cloud_event_unless_it_has_headers_of_its_own(bus: Harness) -> None:
    topic = await bus.topic()
    await bus.publish(topic, "1")
    await bus.producer.publish_many([Outgoing(topic.name, b"k", change("2")[1], [("a", b"b")])])
    first, second = await bus.stored(topic.name)
    assert tuple(first.headers) == (("content-type", b"application/cloudevents+json"),)
    assert tuple(second.headers) == (("a", b"b"),)


# faults of the neighbours


async def test_while_a_neighbour_is_away_the_same_batch_is_tried_again_and_nothing_is_skipped(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    await bus.publish(topic, "1", "2", "3")
    failures = iter([ConnectionRefusedError(), TimeoutError(), PublishFailed()])
    handled, tried = Handled(), Handled()

    async def handle(batch: Batch) -> None:
        await tried(batch)
        for failure in failures:
            raise failure
        await handled(batch)

    consumer = bus.consumer([topic], handle, group)
    await consumer.start()
    await until(lambda: len(handled.names) == 3)
    await bus.publish(topic, "4")
    await until(lambda: len(handled.names) == 4)
    await consumer.stop()
    assert handled.names == ["1", "2", "3", "4"]
    assert tried.batches[:3] == [["1", "2", "3"]] * 3
    assert await bus.dead_letters(topic) == []
    assert await bus.committed(group, topic) == [4]


async def test_a_rebalance_does_not_wait_for_a_neighbour_to_come_back(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    tried, others = Handled(), Handled()

    async def fail(batch: Batch) -> None:
        await tried(batch)
        raise ConnectionRefusedError

    await bus.publish(topic, "1")
    first = bus.consumer([topic], fail, group)
    await first.start()
    await until(lambda: tried.names)
    second = bus.consumer([topic], others, group)
    await second.start()
    await until(lambda: second.ready)
    await first.stop(budget_seconds=1)
    await until(lambda: others.names == ["1"])


# priority, pausing, families, late topics


async def test_high_priority_does_not_wait_for_a_normal_batch(bus: Harness) -> None:
    normal, high = await bus.topic(), await bus.topic(suffix=".high")
    handled, entered, let_go = Handled(), asyncio.Event(), asyncio.Event()

    async def handle(batch: Batch) -> None:
        if batch.of(normal):
            entered.set()
            await let_go.wait()
        await handled(batch)

    await bus.publish(normal, "normal")
    await bus.consumer([high, normal], handle).start()
    await entered.wait()
    await bus.publish(high, "high")
    await until(lambda: handled.names)
    let_go.set()
    await until(lambda: len(handled.names) == 2)
    assert handled.names == ["high", "normal"]


async def test_what_comes_during_a_rest_is_fetched_together_and_a_fetch_ends_the_rest(bus: Harness) -> None:
    topic = await bus.topic(partitions=4)
    stream = bus.stream([topic])
    await stream.start()
    for person in "abcdefgh":
        await bus.publish(topic, "first", person=person)
    first: list[str] = []
    while len(first) < 8:  # then every partition has been looked at, and it asks for all of them at once
        first += names(await stream.getmany(timeout_ms=20_000, max_records=10))
    await bus.publish(topic, "second")
    assert names(await stream.getmany(timeout_ms=20_000, max_records=10)) == ["second"]
    stream.rest(60)
    for person in "abcdefgh":
        await bus.publish(topic, person, person=person)
    assert sorted(names(await stream.getmany(timeout_ms=20_000, max_records=10))) == list("abcdefgh")


async def test_a_rest_ends_by_itself(bus: Harness) -> None:
    topic = await bus.topic()
    stream = bus.stream([topic])
    await stream.start()
    await bus.publish(topic, "1")
    assert names(await stream.getmany(timeout_ms=20_000, max_records=10)) == ["1"]
    fetching = asyncio.create_task(stream.getmany(timeout_ms=20_000, max_records=10))
    await asyncio.sleep(0)  # a rest that begins while it waits, as after a batch that was fetched ahead
    stream.rest(0.05)
    await bus.publish(topic, "2")
    assert names(await fetching) == ["2"]


async def test_a_family_of_topics_is_read_as_one(bus: Harness) -> None:
    one, two = await bus.topic(suffix=".one"), await bus.topic(suffix=".two")
    other = await bus.topic()
    family = TopicFamily(f"^({one.name}|{two.name})$".replace(".", r"\."), one)
    for topic in (one, two, other):
        await bus.publish(topic, topic.name)
    handled = Handled()
    await bus.consumer([family, other], handled).start()
    await until(lambda: len(handled.names) == 3)
    assert sorted(handled.names) == sorted([one.name, two.name, other.name])


async def test_an_empty_call_publishes_nothing(bus: Harness) -> None:
    topic = await bus.topic()
    await bus.producer.publish(topic.name, [])
    assert await bus.stored(topic.name) == []
