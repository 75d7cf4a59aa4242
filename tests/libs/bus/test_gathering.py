"""What a consumer does with records that are kept back to be handed on together, over the bus in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from libs.bus.batch import Batch
from libs.bus.memory import MemorySource
from libs.bus.port import Partitions
from libs.bus.record import Record
from tests.conformance.bus_harness import Handled, Harness
from tests.waiting import until


@pytest.fixture
def bootstrap() -> None:
    """In memory."""


class Odd:
    """Keeps every record whose offset is even until it has to hand on all."""

    def __init__(self) -> None:
        self.kept: dict[TopicPartition, list[Record]] = {}
        self.hurried = False

    def __len__(self) -> int:
        return sum(map(len, self.kept.values()))

    def wanted(self, partitions: Partitions) -> Partitions:
        return partitions

    def pass_on(
        self, found: Mapping[TopicPartition, Sequence[Record]], most: int
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        handed: dict[TopicPartition, list[Record]] = {}
        for partition, raws in found.items():
            for raw in raws:
                (handed if raw.offset % 2 else self.kept).setdefault(partition, []).append(raw)
        if self.hurried:
            for partition, raws in self.kept.items():
                handed.setdefault(partition, []).extend(raws)
            self.forget()
        self.hurried = False
        return handed

    def hurry(self) -> None:
        self.hurried = True

    def forget(self) -> None:
        self.kept.clear()


async def test_what_is_gathered_is_delivered_later_and_holds_up_what_is_committed(bus: Harness) -> None:
    topic, group, handled = await bus.topic(), bus.group(), Handled()
    offsets: list[list[int]] = []

    async def handle(batch: Batch) -> None:
        offsets.append(list(batch.next_offsets().values()))
        await handled(batch)

    await bus.publish(topic, *"012345")
    consumer = bus.consumer([topic], handle, group, gather=Odd)
    await consumer.start()
    await until(lambda: handled.batches == [["1", "3", "5"]])
    await consumer.stop()
    assert await bus.committed(group, topic) == [None]
    again = bus.consumer([topic], handle, group, gather=Odd)
    await again.start()
    await until(lambda: handled.batches[1:] == [["1", "3", "5"]])
    again.hurry()
    await until(lambda: handled.batches[2:] == [["0", "2", "4"]])
    assert offsets == [[0], [0], [6]]
    await again.stop()
    assert await bus.committed(group, topic) == [6]


class Hoard(Odd):
    """Keeps all until it has four, then hands on as many as are asked for."""

    def pass_on(
        self, found: Mapping[TopicPartition, Sequence[Record]], most: int
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        for partition, raws in found.items():
            self.kept.setdefault(partition, []).extend(raws)
        self.hurried = self.hurried or len(self) >= 4
        handed: dict[TopicPartition, list[Record]] = {}
        if self.hurried:
            for partition, raws in self.kept.items():
                handed[partition], raws[:] = raws[:most], raws[most:]
        return handed


@pytest.mark.usefixtures("batches_of_two")
async def test_while_more_is_gathered_than_a_batch_takes_no_new_records_are_waited_for(bus: Harness) -> None:
    topic, handled, waits = await bus.topic(), Handled(), list[int]()

    class Watched(MemorySource):
        async def fetch(self, *args: Any, timeout_ms: int, **options: Any) -> Mapping[TopicPartition, Any]:
            waits.append(timeout_ms)
            return await super().fetch(*args, timeout_ms=timeout_ms, **options)

    bus.read_through(Watched)
    await bus.publish(topic, *"1234")
    await bus.consumer([topic], handled, gather=Hoard).start()
    await until(lambda: handled.batches == [["1", "2"], ["3", "4"]])
    await until(lambda: len(waits) >= 4)
    assert waits[:4] == [1000, 100, 0, 1000]


async def test_what_is_gathered_when_a_rebalance_begins_comes_once_after_it(bus: Harness) -> None:
    topic, group, handled = await bus.topic(), bus.group(), Handled()
    await bus.publish(topic, *"012345")
    consumer = bus.consumer([topic], handled, group, gather=Odd)
    await consumer.start()
    await until(lambda: handled.batches == [["1", "3", "5"]])
    await bus.stream([await bus.topic()], group).start()
    await until(lambda: handled.names.count("5") == 2)
    consumer.hurry()
    await until(lambda: "4" in handled.names)
    await consumer.stop()
    assert sorted(handled.names) == sorted("135" * 2 + "024")
