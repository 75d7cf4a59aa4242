"""The loop's own rules, over the bus in memory. What it shares with Kafka is in tests/conformance."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from aiokafka.structs import TopicPartition
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from libs.bus import consumer_lane
from libs.bus import stream as stream_module
from libs.bus.batch import Batch
from libs.bus.memory import MemorySource
from libs.bus.pacing import Pacing
from tests.conformance.bus_harness import Handled, Harness, change, names
from tests.waiting import until

NUMBER = "+4915112345678"
AN_HOUR = Pacing(floor=3600, ceiling=3600)  # longer than anything is waited for here


@pytest.fixture
def bootstrap() -> None:
    """In memory."""


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_the_pause_grows_with_the_batch_from_30_to_120_ms() -> None:
    pauses = [round(Pacing().seconds(records), 3) for records in (0, 30, 60, 1999)]
    assert pauses == [0.03, 0.075, 0.12, 0.12]


def test_the_pause_shrinks_from_half_a_batch_on() -> None:
    pauses = [round(Pacing().seconds(records, 2000), 3) for records in (30, 60, 1000, 1500, 2000, 2100)]
    assert pauses == [0.075, 0.12, 0.12, 0.06, 0, 0]


@pytest.mark.usefixtures("batches_of_two")
async def test_a_full_batch_is_never_followed_by_a_pause(bus: Harness) -> None:
    topic, handled = await bus.topic(), Handled()
    await bus.publish(topic, *"12345")
    await bus.consumer([topic], handled, pacing=AN_HOUR).start()
    await until(lambda: len(handled.names) == 5)
    assert handled.batches == [["1", "2"], ["3", "4"], ["5"]]


@pytest.mark.usefixtures("batches_of_two")
async def test_the_batch_behind_a_full_one_is_prepared_while_that_is_handled(bus: Harness) -> None:
    topic, handled, prepared = await bus.topic(), list[tuple[list[str], object]](), asyncio.Event()

    async def prepare(batch: Batch) -> object:
        prepared.set()
        return ["prepared", *names(batch.records)]

    async def handle(batch: Batch) -> None:
        if not handled:
            await prepared.wait()
        handled.append((names(batch.records), batch.prepared))

    await bus.publish(topic, *"12345")
    await bus.consumer([topic], handle, prepare=prepare).start()
    await until(lambda: len(handled) == 3)
    assert handled == [
        (["1", "2"], None),
        (["3", "4"], ["prepared", "3", "4"]),
        (["5"], ["prepared", "5"]),
    ]


@pytest.mark.usefixtures("batches_of_two")
async def test_what_was_prepared_is_for_the_whole_batch_alone_and_a_failure_of_it_is_the_handlers(bus: Harness) -> None:
    topic, handled = await bus.topic(), Handled()
    given: dict[str, object] = {}

    async def prepare(batch: Batch) -> object:
        if "6" in names(batch.records):
            raise ValueError("no")
        return "prepared"

    async def handle(batch: Batch) -> None:
        given[" ".join(names(batch.records))] = batch.prepared
        if "4" in names(batch.records):
            raise ValueError("no")
        await handled(batch)

    await bus.publish(topic, *"123456")
    await bus.consumer([topic], handle, prepare=prepare).start()
    await until(lambda: handled.names == ["1", "2", "3", "5", "6"])
    assert given == {"1 2": None, "3 4": "prepared", "3": None, "4": None, "5 6": None}


async def test_a_small_batch_is_followed_by_a_pause_that_stop_cuts_short(bus: Harness) -> None:
    topic, group, handled = await bus.topic(), bus.group(), Handled()
    await bus.publish(topic, "1")
    consumer = bus.consumer([topic], handled, group, pacing=AN_HOUR)
    await consumer.start()
    await until(lambda: handled.names == ["1"])
    await bus.publish(topic, "2")
    await asyncio.sleep(0.1)
    assert handled.names == ["1"]
    await consumer.stop()
    assert await bus.committed(group, topic) == [1]


async def test_a_pause_is_cut_short_for_who_waits(bus: Harness) -> None:
    topic, handled = await bus.topic(), Handled()
    consumer = bus.consumer([topic], handled, pacing=AN_HOUR)
    await consumer.start()
    for name in "123":
        await bus.publish(topic, name)
        consumer.hurry()
        await until(lambda name=name: handled.names[-1:] == [name])


async def test_who_waits_while_a_batch_is_handled_is_not_kept_waiting_by_the_pause_after_it(bus: Harness) -> None:
    topic, handled = await bus.topic(), Handled()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handle(batch: Batch) -> None:
        begun.set()
        await go_on.wait()
        await handled(batch)

    await bus.publish(topic, "1")
    consumer = bus.consumer([topic], handle, pacing=AN_HOUR)
    await consumer.start()
    await begun.wait()
    await bus.publish(topic, "2")
    consumer.hurry()
    go_on.set()
    await until(lambda: handled.names == ["1", "2"])


async def test_high_priority_is_never_paced(bus: Harness) -> None:
    topic, normal, handled = await bus.topic(suffix=".high"), await bus.topic(), Handled()
    await bus.consumer([normal, topic], handled, pacing=AN_HOUR).start()
    for name in "123":
        await bus.publish(topic, name)
        await until(lambda name=name: handled.names[-1:] == [name])


def test_a_rebalance_waits_longer_than_the_batch_in_hand_may_take() -> None:
    assert consumer_lane.DRAIN_SECONDS * 1000 < stream_module.REBALANCE_TIMEOUT_MS


async def test_a_commit_that_fails_is_made_up_for_by_the_next(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    assert bus.memory
    memory = bus.memory
    handled = Handled()

    async def handle(batch: Batch) -> None:
        await handled(batch)
        memory.available = "1" not in handled.names[-1:]  # away for the commit of the first

    await bus.publish(topic, "1")
    consumer = bus.consumer([topic], handle, group)
    with capture_logs() as logs:
        await consumer.start()
        await until(lambda: any(entry["event"] == "bus.commit_failed" for entry in logs))
    memory.available = True
    await bus.publish(topic, "2")
    await until(lambda: memory.committed.get((group, TopicPartition(topic.name, 0))) == 2)
    assert handled.names == ["1", "2"]
    assert consumer.ready


async def test_while_a_neighbour_is_away_the_consumer_is_not_ready_and_says_why(bus: Harness) -> None:
    topic, fault = await bus.topic(), ConnectionRefusedError()

    async def handle(batch: Batch) -> None:
        if fault:
            raise fault

    consumer = bus.consumer([topic], handle)
    await consumer.start()
    await until(lambda: consumer.ready)
    for name, then in (("1", None), ("2", KeyError())):
        fault = ConnectionRefusedError()
        await bus.publish(topic, name)
        await until(lambda: consumer.state == "waiting for a neighbour: ConnectionRefusedError")
        assert not consumer.ready
        fault = then
        await until(lambda: consumer.ready)


async def test_who_gave_its_partitions_to_others_during_an_outage_is_ready_when_that_is_over(bus: Harness) -> None:
    topic, group, handled, away = await bus.topic(partitions=2), bus.group(), Handled(), True

    async def handle(batch: Batch) -> None:
        if away:
            raise ConnectionRefusedError
        await handled(batch)

    first = bus.consumer([topic], handle, group)
    await first.start()
    await bus.publish(topic, "1")
    await until(lambda: first.state == "waiting for a neighbour: ConnectionRefusedError")
    others = [bus.consumer([topic], handle, group) for _ in range(3)]
    for other in others:
        await other.start()
    await until(lambda: any(other.state.startswith("waiting") for other in others))
    away = False
    await until(lambda: handled.names)
    await until(lambda: first.ready and all(other.ready for other in others))


async def test_a_fault_of_the_loop_itself_is_named_and_ends_readiness(bus: Harness) -> None:
    topic = await bus.topic()

    class Broken(MemorySource):
        async def fetch(self, *args: Any, **options: Any) -> Mapping[TopicPartition, Any]:
            raise KeyError(NUMBER)

    bus.read_through(Broken)
    consumer = bus.consumer([topic], Handled())
    with capture_logs() as logs:
        await consumer.start()
        await until(lambda: consumer.state == "stopped: KeyError")
    assert not consumer.ready
    assert NUMBER not in str(logs)


async def test_a_member_whose_commits_fail_for_good_leaves_the_group(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()

    class Refused(MemorySource):
        async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
            raise KeyError(NUMBER)

    bus.read_through(Refused)
    consumer = bus.consumer([topic], Handled(), group)
    await consumer.start()
    await bus.publish(topic, "1")
    await until(lambda: consumer.state == "stopped: KeyError")
    bus.read_through(MemorySource)
    handled = Handled()
    await bus.consumer([topic], handled, group).start()
    await until(lambda: handled.names == ["1"])


async def test_no_log_line_holds_what_a_record_or_an_exception_says(bus: Harness) -> None:
    topic = await bus.topic()
    failures = iter([ConnectionResetError(NUMBER)])
    heard = asyncio.Event()

    async def handle(batch: Batch) -> None:
        for failure in failures:
            raise failure
        raise ValueError(NUMBER)

    async def hook(*_: object) -> None:
        heard.set()
        raise KeyError(NUMBER)

    await bus.producer.publish(topic.name, [(NUMBER.encode(), NUMBER.encode()), change(NUMBER)])
    with capture_logs() as logs:
        consumer = bus.consumer([topic], handle, on_dead_letter=hook)
        await consumer.start()
        await until(lambda: bus.memory and len(bus.memory.records(topic.dead_letter)) == 2)
        await until(heard.is_set)
        await consumer.stop()
    events = [entry["event"] for entry in logs]
    assert {"retry", "bus.dead_letter", "bus.dead_letter_hook_failed"} <= set(events)
    assert NUMBER not in str(logs)
    assert bus.memory
    letters = bus.memory.records(topic.dead_letter)
    assert all(NUMBER.encode() not in value for letter in letters for _, value in letter.headers)


async def test_work_is_counted_by_topic(bus: Harness) -> None:
    topic, handled = await bus.topic(), Handled()
    await bus.producer.publish(topic.name, [(b"k", b"{"), *(change(name) for name in "123")])
    await bus.consumer([topic], handled).start()
    await until(lambda: len(handled.names) == 3)
    assert sample("postrider_records_consumed_total", topic=topic.name) == 3
    assert sample("postrider_dead_letters_total", topic=topic.name, reason="undecodable") == 1


async def test_the_lag_counts_what_is_not_finished_and_is_gone_with_the_partition(
    bus: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "LAG_EVERY_SECONDS", 0.01)
    topic = await bus.topic()
    stream = bus.stream([topic])

    def lag() -> float | None:
        return REGISTRY.get_sample_value("postrider_consumer_lag_records", {"topic": topic.name, "partition": "0"})

    await bus.publish(topic, *"12345")
    await stream.start()
    await until(lambda: lag() == 5)
    records = await stream.getmany(timeout_ms=1000, max_records=3)
    stream.finished(records[:1])
    await until(lambda: lag() == 4)
    stream.finished(records[1:])
    await until(lambda: lag() == 2)
    await stream.stop()
    assert lag() is None
