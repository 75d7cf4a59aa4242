"""What every service may rely on when it stops, crashes or shares its partitions: nothing is lost, and what is done is committed."""

import asyncio

import pytest

from libs.bus import consumer_lane
from libs.bus.batch import Batch
from libs.bus.port import Partitions
from libs.bus.record import Record
from tests.conformance.bus_harness import Handled, Harness, change, names
from tests.waiting import until


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
    await until(lambda: ["2"] in batches)
    assert await bus.committed(group, topic) == [1]
    await bus.publish(topic, "4")
    await until(lambda: ["2", "4"] in batches)
    let_go = True
    seen = len(batches)
    await until(lambda: len(batches) > seen)
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
    await until(lambda: first)
    await consumer.stop()
    await bus.consumer([topic], next_one, group).start()
    await until(lambda: next_one.names == ["1"])


async def test_what_a_service_said_itself_is_passed_over_and_committed(bus: Harness) -> None:
    topic, group, handled = await bus.topic(), bus.group(), Handled()
    records = [change("1"), change("2", source="us"), change("us"), change("4", source="us")]
    await bus.producer.publish(topic.name, [*records, (None, b'{"source":"us"'), (None, None)])
    consumer = bus.consumer([topic], handled, group, own_source="us")
    await consumer.start()
    await until(lambda: handled.names == ["1", "us"])
    await bus.producer.publish(topic.name, [change("6", source="us")])
    await bus.publish(topic, "7")
    await until(lambda: handled.names == ["1", "us", "7"])
    await consumer.stop()
    assert await bus.committed(group, topic) == [8]
    assert [letter.value for letter in await bus.dead_letters(topic)] == [b'{"source":"us"', None]


async def test_offsets_set_back_bring_everything_again(bus: Harness) -> None:
    topic, group = await bus.topic(partitions=2), bus.group()
    for person in range(8):
        await bus.publish(topic, str(person), person=str(person))
    for _ in range(2):
        handled = Handled()
        consumer = bus.consumer([topic], handled, group)
        await consumer.start()
        await until(lambda handled=handled: len(handled.names) == 8)
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


@pytest.mark.usefixtures("batches_of_two")
async def test_a_stop_while_the_next_batch_is_at_hand_commits_too(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    entered, finish = asyncio.Event(), asyncio.Event()
    handled = Handled()

    async def handle(batch: Batch) -> None:
        await handled(batch)
        if "3" in handled.names:  # the batch before was committed, and this one is not at once
            entered.set()
            await finish.wait()

    await bus.publish(topic, "1", "2", "3", "4", "5", "6")
    consumer = bus.consumer([topic], handle, group)
    await consumer.start()
    await entered.wait()
    stopping = asyncio.create_task(consumer.stop(budget_seconds=10))
    await asyncio.sleep(0)
    finish.set()
    await stopping
    assert handled.names == ["1", "2", "3", "4"]
    assert await bus.committed(group, topic) == [4]


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
    await until(lambda: lane._stream.epoch > epoch)
    await asyncio.sleep(0.2)
    assert not newcomer.ready
    let_go.set()
    await until(lambda: newcomer.ready)
    await bus.publish(topic, "4")
    await until(lambda: "4" in handled.names + others.names)
    assert sorted(handled.names + others.names) == ["1", "2", "3", "4"]


async def test_a_batch_that_outlasts_the_drain_holds_up_no_rebalance_and_comes_again(
    bus: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_lane, "DRAIN_SECONDS", 0.2)
    topic, group = await bus.topic(), bus.group()
    entered, let_go = asyncio.Event(), asyncio.Event()
    handled = Handled()

    async def handle(batch: Batch) -> None:
        entered.set()
        await let_go.wait()
        await handled(batch)

    await bus.publish(topic, "1")
    await bus.consumer([topic], handle, group).start()
    await entered.wait()
    newcomer = bus.consumer([topic], handle, group)
    await newcomer.start()
    await until(lambda: newcomer.ready)
    assert await bus.committed(group, topic) == [None]
    let_go.set()
    await until(lambda: handled.names == ["1", "1"])


async def test_two_members_share_the_partitions(bus: Harness) -> None:
    topic, group = await bus.topic(partitions=2), bus.group()
    one, two = Handled(), Handled()
    first, second = bus.consumer([topic], one, group), bus.consumer([topic], two, group)
    await first.start()
    await second.start()
    await until(lambda: first.ready and second.ready)
    sent = 0

    async def send_more() -> None:
        nonlocal sent
        for person in range(8):
            await bus.publish(topic, str(sent), person=str(person))
            sent += 1

    for _ in range(100):
        await send_more()
        await until(lambda: len(set(one.names + two.names)) == sent)
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
    await until(lambda: first.assignment() | second.assignment())
    first.finished(records)
    await first.commit()
    assert await bus.committed(group, topic) == [1]
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
