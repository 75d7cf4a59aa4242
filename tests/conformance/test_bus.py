"""What every service may rely on, held by the real broker and by the one in memory alike."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pytest import FixtureRequest

from libs.bus.codec import Decoders
from libs.bus.consumer import Batch
from libs.bus.errors import BadRecord, PublishFailed, TooManyDeadLetters
from libs.bus.port import Outgoing, Partitions, TopicFamily
from libs.bus.record import Record
from libs.contracts.events import Reason
from tests.conformance.bus_harness import Handled, Harness, change, eventually, names, open_harness


@pytest.fixture(params=["memory", "kafka"])
def bootstrap(request: FixtureRequest) -> str | None:
    return request.getfixturevalue("kafka") if request.param == "kafka" else None


@pytest.fixture
async def bus(bootstrap: str | None) -> AsyncIterator[Harness]:
    harness = await open_harness(bootstrap)
    yield harness
    await harness.close()


# order


async def test_records_of_one_key_keep_the_order_of_the_calls_also_when_these_run_at_once(bus: Harness) -> None:
    topic = await bus.topic(partitions=4)
    calls = [bus.publish(topic, f"{n}a", f"{n}b", person=str(n % 3)) for n in range(60)]
    await asyncio.gather(*calls)
    handled = Handled()
    await bus.consumer([topic], handled).start()
    await eventually(lambda: len(handled.names) == 120)
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


# commits


async def test_nothing_is_committed_before_the_handler_has_returned(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    entered, let_go = asyncio.Event(), asyncio.Event()

    async def handle(batch: Batch) -> None:
        entered.set()
        await let_go.wait()

    await bus.publish(topic, "1", "2")
    consumer = bus.consumer([topic], handle, group)
    await consumer.start()
    await entered.wait()
    assert await bus.committed(group, topic) == [None]
    let_go.set()
    await consumer.stop()
    assert await bus.committed(group, topic) == [2]


async def test_records_that_were_not_finished_come_again_to_the_next_member(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    await bus.publish(topic, "1", "2", "3")
    first = bus.stream([topic], group)
    await first.start()
    records = await first.getmany(timeout_ms=20_000, max_records=10)
    assert names(records) == ["1", "2", "3"]
    first.finished(records[:1])
    await first.commit()
    await first.stop()
    second = bus.stream([topic], group)
    await second.start()
    assert names(await second.getmany(timeout_ms=20_000, max_records=10)) == ["2", "3"]


async def test_commits_go_up_to_the_lowest_unfinished_record(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    await bus.publish(topic, "1", "2", "3", "4")
    stream = bus.stream([topic], group)
    await stream.start()
    records = await stream.getmany(timeout_ms=20_000, max_records=10)
    stream.finished([records[2], records[0]])
    assert await stream.commit()
    assert await bus.committed(group, topic) == [1]
    assert stream.unfinished() == 2
    stream.finished([records[1]])
    assert await stream.commit()
    assert await bus.committed(group, topic) == [3]


async def test_what_a_handler_holds_stays_uncommitted_and_comes_again_with_what_follows(bus: Harness) -> None:
    topic, group, batches = await bus.topic(), bus.group(), list[list[str]]()
    let_go = False

    async def hold_the_second(batch: Batch) -> list[Record]:
        batches.append(names(batch.records))
        return [] if let_go else [record for record in batch if record.event.data.name == "2"]

    await bus.publish(topic, "1", "2", "3")
    await bus.consumer([topic], hold_the_second, group).start()
    await eventually(lambda: ["2"] in batches)
    assert await bus.committed(group, topic) == [1]
    await bus.publish(topic, "4")
    await eventually(lambda: ["2", "4"] in batches)
    let_go = True
    seen = len(batches)
    await eventually(lambda: len(batches) > seen)
    await bus.running[-1].stop()
    assert await bus.committed(group, topic) == [4]
    assert sum(batch.count("3") for batch in batches) == 1


async def test_what_is_held_at_the_stop_goes_to_the_next_member(bus: Harness) -> None:
    topic, group, next_one = await bus.topic(), bus.group(), Handled()
    first = list[str]()

    async def hold(batch: Batch) -> list[Record]:
        first.extend(names(batch.records))
        return list(batch)

    await bus.publish(topic, "1")
    consumer = bus.consumer([topic], hold, group)
    await consumer.start()
    await eventually(lambda: first)
    await consumer.stop()
    await bus.consumer([topic], next_one, group).start()
    await eventually(lambda: next_one.names == ["1"])


async def test_what_a_service_said_itself_is_passed_over_and_committed(bus: Harness) -> None:
    topic, group, handled = await bus.topic(), bus.group(), Handled()
    records = [change("1"), change("2", source="us"), change("us"), change("4", source="us")]
    await bus.producer.publish(topic.name, [*records, (None, b'{"source":"us"')])
    consumer = bus.consumer([topic], handled, group, own_source="us")
    await consumer.start()
    await eventually(lambda: handled.names == ["1", "us"])
    await bus.producer.publish(topic.name, [change("6", source="us")])
    await bus.publish(topic, "7")
    await eventually(lambda: handled.names == ["1", "us", "7"])
    await consumer.stop()
    assert await bus.committed(group, topic) == [7]
    assert [letter.value for letter in await bus.dead_letters(topic)] == [b'{"source":"us"']


async def test_offsets_set_back_bring_everything_again(bus: Harness) -> None:
    topic, group = await bus.topic(partitions=2), bus.group()
    for person in range(8):
        await bus.publish(topic, str(person), person=str(person))
    for _ in range(2):
        handled = Handled()
        consumer = bus.consumer([topic], handled, group)
        await consumer.start()
        await eventually(lambda handled=handled: len(handled.names) == 8)
        await consumer.stop()
        assert sorted(handled.names) == [str(person) for person in range(8)]
        await bus.set_back(group, topic)


async def test_stop_finishes_the_batch_in_hand_and_commits_it(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    entered = asyncio.Event()
    handled = Handled()

    async def handle(batch: Batch) -> None:
        entered.set()
        await asyncio.sleep(0.2)
        await handled(batch)

    await bus.publish(topic, "1")
    consumer = bus.consumer([topic], handle, group)
    await consumer.start()
    await entered.wait()
    assert consumer.ready
    await consumer.stop(budget_seconds=10)
    assert handled.names == ["1"]
    assert await bus.committed(group, topic) == [1]
    assert (consumer.ready, consumer.state) == (False, "stopped")


async def test_stop_does_not_wait_beyond_its_budget_and_commits_nothing_unfinished(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    entered = asyncio.Event()

    async def handle(batch: Batch) -> None:
        entered.set()
        await asyncio.Event().wait()

    await bus.publish(topic, "1")
    consumer = bus.consumer([topic], handle, group)
    await consumer.start()
    await entered.wait()
    await consumer.stop(budget_seconds=0.1)
    assert await bus.committed(group, topic) == [None]


# rebalances


async def test_a_rebalance_waits_for_the_batch_in_hand_and_its_records_do_not_come_again(bus: Harness) -> None:
    topic, group = await bus.topic(partitions=2), bus.group()
    entered, let_go = asyncio.Event(), asyncio.Event()
    handled, others = Handled(), Handled()

    async def handle(batch: Batch) -> None:
        entered.set()
        await let_go.wait()
        await handled(batch)

    await bus.publish(topic, "1", "2", "3")
    first = bus.consumer([topic], handle, group)
    await first.start()
    await entered.wait()
    (lane,) = first._lanes
    epoch = lane._stream.epoch
    newcomer = bus.consumer([topic], others, group)
    await newcomer.start()
    await eventually(lambda: lane._stream.epoch > epoch)
    await asyncio.sleep(0.2)
    assert not newcomer.ready
    let_go.set()
    await eventually(lambda: newcomer.ready)
    await bus.publish(topic, "4")
    await eventually(lambda: "4" in handled.names + others.names)
    assert sorted(handled.names + others.names) == ["1", "2", "3", "4"]


async def test_a_batch_that_outlasts_the_drain_holds_up_no_rebalance_and_comes_again(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    entered, let_go = asyncio.Event(), asyncio.Event()
    handled = Handled()

    async def handle(batch: Batch) -> None:
        entered.set()
        await let_go.wait()
        await handled(batch)

    await bus.publish(topic, "1")
    await bus.consumer([topic], handle, group, drain_seconds=0.2).start()
    await entered.wait()
    newcomer = bus.consumer([topic], handle, group)
    await newcomer.start()
    await eventually(lambda: newcomer.ready)
    assert await bus.committed(group, topic) == [None]
    let_go.set()
    await eventually(lambda: handled.names == ["1", "1"])


async def test_two_members_share_the_partitions(bus: Harness) -> None:
    topic, group = await bus.topic(partitions=2), bus.group()
    one, two = Handled(), Handled()
    first, second = bus.consumer([topic], one, group), bus.consumer([topic], two, group)
    await first.start()
    await second.start()
    await eventually(lambda: first.ready and second.ready)
    sent = 0

    async def send_more() -> None:
        nonlocal sent
        for person in range(8):
            await bus.publish(topic, str(sent), person=str(person))
            sent += 1

    for _ in range(100):
        await send_more()
        await eventually(lambda: len(set(one.names + two.names)) == sent)
        if one.names and two.names:
            break
    assert one.names
    assert two.names


async def test_what_outlasts_the_drain_is_not_committed_by_its_old_owner(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    revoked = asyncio.Event()

    async def on_revoked(partitions: Partitions) -> None:
        revoked.set()

    await bus.publish(topic, "1", "2")
    first = bus.stream([topic], group, on_revoked=on_revoked)
    await first.start()
    records = await first.getmany(timeout_ms=20_000, max_records=10)
    epoch = first.epoch
    first.finished(records[:1])
    polling = asyncio.create_task(first.getmany(timeout_ms=20_000, max_records=10))
    second = bus.stream([topic], group)
    await second.start()
    await revoked.wait()
    assert first.epoch != epoch
    assert await bus.committed(group, topic) == [1]
    await eventually(lambda: first.assignment() | second.assignment())
    first.finished(records)
    await first.commit()
    assert await bus.committed(group, topic) == [1]
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)


# faults of the data


async def test_what_is_not_an_event_goes_to_the_dead_letters_unchanged_and_the_rest_is_handled(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    key, good = change("good")
    headers = [("content-type", b"text/plain"), ("x-origin", b"\x00\xff")]
    await bus.producer.publish_many([Outgoing(topic.name, b"some key", b"\xffnot json +4915112345678", headers)])
    await bus.producer.publish(topic.name, [(key, good)])
    handled = Handled()
    consumer = bus.consumer([topic], handled, group)
    await consumer.start()
    await eventually(lambda: handled.names == ["good"])
    await consumer.stop()
    assert await bus.committed(group, topic) == [2]
    (letter,) = await bus.dead_letters(topic)
    assert (letter.key, letter.value) == (b"some key", b"\xffnot json +4915112345678")
    assert list(letter.headers)[:2] == headers
    added = dict(list(letter.headers)[2:])
    assert added["dead-letter-reason"] == b"undecodable"
    assert added["dead-letter-words"] == b"JSON is malformed: invalid character (byte 0)"
    assert added["dead-letter-topic"] == topic.name.encode()
    assert (added["dead-letter-partition"], added["dead-letter-offset"]) == (b"0", b"0")
    assert added["dead-letter-group"] == group.encode()
    assert added["dead-letter-time"].startswith(b"20")


async def test_a_record_without_value_or_of_another_type_goes_to_the_dead_letters(bus: Harness) -> None:
    topic = await bus.topic()
    key, value = change("other")
    other = value.replace(b"postrider.contact.changed.v1", b"postrider.contact.changed.v2")
    await bus.producer.publish(topic.name, [(key, None), (key, other), change("good")])
    handled = Handled()
    await bus.consumer([topic], handled).start()
    await eventually(lambda: handled.names == ["good"])
    words = [dict(letter.headers)["dead-letter-words"] for letter in await bus.dead_letters(topic)]
    expected = b"Expected the event type `postrider.contact.changed.v1` - at `$.type`"
    assert words == [b"The record has no value", expected]


async def test_a_handler_may_read_the_events_itself_and_what_it_can_not_read_goes_to_the_dead_letters(
    bus: Harness,
) -> None:
    topic, group, read = await bus.topic(), bus.group(), list[str]()
    decoders = Decoders([topic])

    async def handle(batch: Batch) -> None:
        assert all(record.event is None for record in batch)
        read.extend([decoders[record.topic](record.raw).data.name for record in batch])

    await bus.producer.publish(topic.name, [change("a"), (b"k", b"\xff"), (b"k", None), change("b")])
    consumer = bus.consumer([topic], handle, group, decode=False)
    await consumer.start()
    await eventually(lambda: read == ["a", "b"])
    await consumer.stop()
    assert await bus.committed(group, topic) == [4]
    letters = await bus.dead_letters(topic)
    assert [dict(letter.headers)["dead-letter-words"] for letter in letters] == [
        b"JSON is malformed: invalid character (byte 0)",
        b"The record has no value",
    ]
    assert {dict(letter.headers)["dead-letter-reason"] for letter in letters} == {b"undecodable"}


async def test_a_batch_is_halved_until_the_poison_is_found_and_all_others_are_handled_in_order(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    await bus.publish(topic, *map(str, range(100)))
    handled = Handled()

    async def handle(batch: Batch) -> None:
        if {"13", "77"} & set(names(batch.records)):
            raise KeyError("+4915112345678")
        await handled(batch)

    consumer = bus.consumer([topic], handle, group)
    await consumer.start()
    await eventually(lambda: handled.names[-1:] == ["99"])
    await consumer.stop()
    assert handled.names == [str(n) for n in range(100) if n not in (13, 77)]
    assert await bus.committed(group, topic) == [100]
    letters = await bus.dead_letters(topic)
    assert [letter.value for letter in letters] == [change("13")[1], change("77")[1]]
    words = dict(letters[0].headers)["dead-letter-words"]
    assert words.startswith(b"KeyError in test_bus.py:")


async def test_a_handler_may_say_why_a_record_is_bad_and_a_service_hears_of_each_dead_letter(bus: Harness) -> None:
    topic = await bus.topic()
    heard: list[tuple[str, Reason]] = []
    reason = Reason("unknown-gateway", "The gateway is not configured")

    async def handle(batch: Batch) -> None:
        raise BadRecord(reason)

    async def on_dead_letter(record: Record, why: Reason) -> None:
        heard.append((record.event.data.name, why))
        raise KeyError("a hook's fault changes nothing")

    await bus.publish(topic, "1", "2")
    consumer = bus.consumer([topic], handle, on_dead_letter=on_dead_letter)
    await consumer.start()
    await eventually(lambda: len(heard) == 2)
    assert heard == [("1", reason), ("2", reason)]
    assert consumer.ready
    codes = [dict(letter.headers)["dead-letter-reason"] for letter in await bus.dead_letters(topic)]
    assert codes == [b"unknown-gateway", b"unknown-gateway"]


async def test_a_run_of_failures_stops_the_consumer_and_leaves_the_rest_uncommitted(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    await bus.publish(topic, "good", *(f"bad {n}" for n in range(10)))

    async def handle(batch: Batch) -> None:
        if any(name != "good" for name in names(batch.records)):
            raise KeyError

    consumer = bus.consumer([topic], handle, group, dead_letter_limit=3)
    await consumer.start()
    await eventually(lambda: consumer.state == "stopped: too many dead letters")
    assert not consumer.ready
    await consumer.stop()
    assert consumer.state == "stopped: too many dead letters"
    assert await bus.committed(group, topic) == [4]
    assert len(await bus.dead_letters(topic)) == 3


async def test_failures_that_come_one_by_one_are_a_run_too(bus: Harness) -> None:
    topic, group, put_away = await bus.topic(), bus.group(), list[Record]()

    async def handle(batch: Batch) -> None:
        raise KeyError

    async def told(record: Record, _: Reason) -> None:
        put_away.append(record)

    consumer = bus.consumer([topic], handle, group, dead_letter_limit=3, on_dead_letter=told)
    await consumer.start()
    for n in range(1, 4):
        await bus.publish(topic, f"bad {n}")
        await eventually(lambda n=n: len(put_away) == n)
    await bus.publish(topic, "bad 4")
    await eventually(lambda: consumer.state == "stopped: too many dead letters")


async def test_a_run_of_undecodable_records_stops_the_stream_too(bus: Harness) -> None:
    topic = await bus.topic()
    rows = [(b"k", b"{"), (b"k", b"{"), change("good"), (b"k", b"{"), (b"k", b"{"), (b"k", b"{")]
    await bus.producer.publish(topic.name, rows)
    stream = bus.stream([topic], limit=2)
    await stream.start()
    with pytest.raises(TooManyDeadLetters):
        for _ in range(10):
            await stream.getmany(timeout_ms=2000, max_records=10)
    assert len(await bus.dead_letters(topic)) == 4


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
    await eventually(lambda: len(handled.names) == 3)
    await bus.publish(topic, "4")
    await eventually(lambda: len(handled.names) == 4)
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
    await eventually(lambda: tried.names)
    second = bus.consumer([topic], others, group)
    await second.start()
    await eventually(lambda: second.ready)
    await first.stop(budget_seconds=1)
    await eventually(lambda: others.names == ["1"])


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
    await eventually(lambda: handled.names)
    let_go.set()
    await eventually(lambda: len(handled.names) == 2)
    assert handled.names == ["high", "normal"]


async def test_a_paused_partition_delivers_nothing_until_it_is_resumed(bus: Harness) -> None:
    topic = await bus.topic()
    stream = bus.stream([topic])
    await stream.start()
    await eventually(stream.assignment)
    stream.pause(stream.assignment())
    await bus.publish(topic, "1")
    assert await stream.getmany(timeout_ms=300, max_records=10) == []
    stream.resume(stream.assignment())
    assert names(await stream.getmany(timeout_ms=20_000, max_records=10)) == ["1"]


async def test_what_comes_during_a_rest_is_fetched_together_and_a_fetch_ends_the_rest(bus: Harness) -> None:
    topic = await bus.topic(partitions=4)
    stream = bus.stream([topic])
    await stream.start()
    await bus.publish(topic, "first")
    assert names(await stream.getmany(timeout_ms=20_000, max_records=10)) == ["first"]
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
    await eventually(lambda: len(handled.names) == 3)
    assert sorted(handled.names) == sorted([one.name, two.name, other.name])


async def test_an_empty_call_publishes_nothing(bus: Harness) -> None:
    topic = await bus.topic()
    await bus.producer.publish(topic.name, [])
    assert await bus.stored(topic.name) == []
