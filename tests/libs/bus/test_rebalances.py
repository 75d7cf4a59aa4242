"""What a rebalance does to records that are on their way, over the bus in memory."""

import asyncio

import pytest

from libs.bus import stream as stream_module
from libs.bus.batch import Batch
from libs.bus.record import Record
from libs.contracts.events import Reason
from tests.conformance.bus_harness import Harness, change, names
from tests.waiting import until


@pytest.fixture
def bootstrap() -> None:
    """In memory."""


async def rebalance(bus: Harness, group: str) -> None:
    """Somebody joins who reads another topic: everything is taken, and comes back."""
    await bus.stream([await bus.topic()], group).start()


async def test_what_was_delivered_before_a_rebalance_does_not_count_after_it(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    await bus.publish(topic, "1", "2")
    stream = bus.stream([topic], group)
    await stream.start()
    old = await stream.getmany(timeout_ms=1000, max_records=10)
    await rebalance(bus, group)
    new = await stream.getmany(timeout_ms=1000, max_records=10)
    stream.finished(old)
    await stream.commit()
    assert await bus.committed(group, topic) == [None]
    stream.finished(new)
    await stream.commit()
    assert await bus.committed(group, topic) == [2]


async def test_a_rebalance_while_a_dead_letter_waits_for_the_broker_delivers_the_record_again(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    assert bus.memory
    await bus.producer.publish(topic.name, [(b"k", b"{"), change("good")])
    stream = bus.stream([topic], group)
    await stream.start()
    fetched = asyncio.Event()

    class Away:
        async def publish(self, *_: object) -> None: ...

        async def publish_many(self, *_: object) -> None:
            fetched.set()
            raise ConnectionRefusedError

    here = stream._undecodables._producer
    stream._undecodables._producer = Away()
    getting = asyncio.create_task(stream.getmany(timeout_ms=1000, max_records=10))
    await fetched.wait()
    await rebalance(bus, group)
    assert await getting == []
    stream._undecodables._producer = here
    (record,) = await stream.getmany(timeout_ms=1000, max_records=10)
    assert record.event.data.name == "good"
    assert len(bus.memory.records(topic.dead_letter)) == 1


async def test_what_is_being_decoded_when_a_rebalance_begins_is_not_delivered_and_comes_again(
    bus: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "_DECODED_AT_ONCE", 1)
    topic, group = await bus.topic(), bus.group()
    await bus.publish(topic, *map(str, range(50)))
    stream = bus.stream([topic], group)
    await stream.start()
    getting = asyncio.create_task(stream.getmany(timeout_ms=1000, max_records=50))
    await rebalance(bus, group)
    assert await getting == []
    assert len(await stream.getmany(timeout_ms=1000, max_records=50)) == 50


async def test_a_service_that_could_not_be_told_of_a_dead_letter_before_a_rebalance_is_told_after_it(
    bus: Harness,
) -> None:
    topic, group = await bus.topic(), bus.group()
    tried, told = asyncio.Event(), list[str]()
    away = True

    async def handle(batch: Batch) -> None:
        raise KeyError

    async def on_dead_letter(record: Record, _: Reason) -> None:
        tried.set()
        if away:
            raise ConnectionRefusedError
        told.append(record.event.data.name)

    await bus.publish(topic, "1")
    consumer = bus.consumer([topic], handle, group, on_dead_letter=on_dead_letter)
    await consumer.start()
    await tried.wait()
    await rebalance(bus, group)
    away = False
    await until(lambda: told == ["1"])
    assert consumer.ready


async def test_what_is_held_when_a_rebalance_begins_comes_once_after_it(bus: Harness) -> None:
    topic, group, batches = await bus.topic(), bus.group(), list[list[str]]()

    async def hold(batch: Batch) -> list[Record]:
        batches.append(names(batch.records))
        return list(batch)

    await bus.publish(topic, "1")
    await bus.consumer([topic], hold, group).start()
    await until(lambda: batches)
    await rebalance(bus, group)
    await bus.publish(topic, "2")
    await until(lambda: any("2" in batch for batch in batches))
    assert not [batch for batch in batches if batch.count("1") > 1]


async def test_halves_of_a_batch_that_were_not_begun_when_a_rebalance_begins_are_left_to_come_again(
    bus: Harness,
) -> None:
    topic, group, batches = await bus.topic(), bus.group(), list[list[str]]()
    ours, first_half, taken = list[bool](), asyncio.Event(), asyncio.Event()

    async def handle(batch: Batch) -> None:
        assert batch.stream
        ours.append(all(record.epoch == batch.stream.epoch for record in batch))
        batches.append(names(batch.records))
        if len(batches) == 1:
            raise KeyError
        if len(batches) == 2:
            first_half.set()
            await taken.wait()

    await bus.publish(topic, *"1234")
    consumer = bus.consumer([topic], handle, group)
    await consumer.start()
    await first_half.wait()
    (lane,) = consumer._lanes
    joining = asyncio.create_task(rebalance(bus, group))
    epoch = lane._stream.epoch
    await until(lambda: lane._stream.epoch > epoch)
    taken.set()
    await joining
    await until(lambda: len(batches) == 3)
    assert batches == [["1", "2", "3", "4"], ["1", "2"], ["3", "4"]]
    assert all(ours)
