"""What only a member of a group on a real Kafka can get wrong."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.structs import TopicPartition
from structlog.testing import capture_logs

from libs.bus import consumer_lane, kafka_source
from libs.bus import stream as stream_module
from libs.bus.partitioning import partition_of
from libs.bus.port import Partitions, TopicFamily
from libs.bus.stream import RecordStream
from tests.conformance.bus_harness import Handled, open_harness
from tests.waiting import until


async def stop_at_once(stream: RecordStream) -> None:
    await stream.stop()


async def stop_at_the_end_of_a_task(stream: RecordStream) -> None:
    """As whoever reads in a task of its own does, once that is cancelled."""
    begun = asyncio.Event()

    async def read() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await stream.stop()

    reading = asyncio.create_task(read())
    await begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.mark.parametrize("stop", [stop_at_once, stop_at_the_end_of_a_task])
async def test_who_stops_while_giving_partitions_back_leaves_the_group_all_the_same(
    kafka: str, monkeypatch: pytest.MonkeyPatch, stop: Callable[[RecordStream], Awaitable[None]]
) -> None:
    monkeypatch.setattr(stream_module, "REBALANCE_TIMEOUT_MS", 120_000)
    harness = await open_harness(kafka)
    topic, group = await harness.topic(partitions=2), harness.group()
    giving_back = asyncio.Event()

    async def give_back(_: Partitions) -> None:
        giving_back.set()
        await asyncio.Event().wait()

    leaving = harness.stream([topic], group, on_revoked=give_back)
    await leaving.start()
    await until(lambda: len(leaving.assignment()) == 2)
    staying = harness.stream([topic], group)
    joining = asyncio.create_task(staying.start())
    await giving_back.wait()
    await stop(leaving)
    harness.running.remove(leaving)
    async with asyncio.timeout(30):
        await joining
    assert len(staying.assignment()) == 2
    await harness.close()


async def test_what_kafka_holds_at_offsets_that_were_passed_is_read_and_committed_anew(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a lost volume, when aiokafka goes back to the beginning without a word."""
    monkeypatch.setattr(consumer_lane, "_COMMIT_SECONDS", 1e9)  # so that giving partitions back commits what is lost
    harness = await open_harness(kafka)
    topic, group, handled = await harness.topic(), harness.group(), Handled()
    await harness.publish(topic, "1", "2", "3")
    fetch, made = AIOKafkaConsumer.getmany, list[AIOKafkaConsumer]()

    async def watched(consumer: AIOKafkaConsumer, *partitions: TopicPartition, **how: Any) -> Any:
        if consumer not in made:
            made.append(consumer)
        return await fetch(consumer, *partitions, **how)

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", watched)
    consumer = harness.consumer([topic], handled, group)
    await consumer.start()
    await until(lambda: handled.names == ["1", "2", "3"])
    with capture_logs() as logs:
        made[0].seek(TopicPartition(topic.name, 0), 1)
        await until(lambda: handled.names == ["1", "2", "3", "2", "3"])
    assert [each["partition"] for each in logs if "records_lost" in each["event"]] == [0]
    assert len(made) == 2, "it has joined anew"
    await harness.publish(topic, "4")
    await until(lambda: handled.names[-1] == "4")
    await consumer.stop()
    assert await harness.committed(group, topic) == [4]
    await harness.close()


async def test_what_kafka_no_longer_has_of_what_was_committed_is_told_also_where_it_begins_with_its_first(
    kafka: str,
) -> None:
    harness = await open_harness(kafka)
    topic, group, handled = await harness.topic(), harness.group(), Handled()
    await harness.publish(topic, "1", "2")
    async with AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False) as before:
        before.assign([TopicPartition(topic.name, 0)])
        await before.commit({TopicPartition(topic.name, 0): 100})
    with capture_logs() as logs:
        await harness.consumer([topic], handled, group).start()
        await until(lambda: handled.names == ["1", "2"])
    assert [each["partition"] for each in logs if "records_lost" in each["event"]] == [0]
    await harness.close()


async def test_a_rebalance_while_it_is_looked_where_to_go_on_is_not_taken_for_a_loss(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = await open_harness(kafka)
    topic, group, before, handled = await harness.topic(partitions=2), harness.group(), Handled(), Handled()
    people = {partition_of(f"t/client/{n}".encode(), 2): str(n) for n in range(20)}
    for person in people.values():
        await harness.publish(topic, "1", "2", person=person)
    consumer = harness.consumer([topic], before, group)
    await consumer.start()
    await until(lambda: len(before.names) == 4)
    await consumer.stop()
    for person in people.values():
        await harness.publish(topic, "3", person=person)
    look, looking, joined = AIOKafkaConsumer.committed, asyncio.Event(), asyncio.Event()

    async def slow(consumer: AIOKafkaConsumer, partition: TopicPartition) -> Any:
        if not looking.is_set():
            looking.set()
            await joined.wait()
        return await look(consumer, partition)

    monkeypatch.setattr(AIOKafkaConsumer, "committed", slow)
    with capture_logs() as logs:
        members = [harness.consumer([topic], handled, group) for _ in range(2)]
        await members[0].start()
        await looking.wait()
        await members[1].start()
        await until(lambda: members[1].ready)
        joined.set()
        await until(lambda: handled.names == ["3", "3"])
        for person in people.values():
            await harness.publish(topic, "4", person=person)
        await until(lambda: sorted(handled.names) == ["3", "3", "4", "4"])
    assert not [each for each in logs if "records_lost" in each["event"]]
    await harness.close()


async def test_what_was_deleted_before_it_was_read_is_told(kafka: str) -> None:
    harness = await open_harness(kafka)
    topic, group, before, after = await harness.topic(), harness.group(), Handled(), Handled()
    await harness.publish(topic, "1", "2")
    consumer = harness.consumer([topic], before, group)
    await consumer.start()
    await until(lambda: before.names == ["1", "2"])
    await consumer.stop()
    await harness.publish(topic, "3", "4", "5", "6")
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.delete_records({TopicPartition(topic.name, 0): RecordsToDelete(before_offset=5)})
    await admin.close()
    with capture_logs() as logs:
        await harness.consumer([topic], after, group).start()
        await until(lambda: after.names == ["6"])
    assert [each["records"] for each in logs if each["event"] == "kafka.records_missed"] == [3]
    await harness.close()


async def test_a_client_whose_fetching_has_ended_without_a_word_is_replaced(kafka: str) -> None:
    harness = await open_harness(kafka)
    topic, handled = await harness.topic(), Handled()
    consumer = harness.consumer([topic], handled)
    await consumer.start()
    await harness.publish(topic, "1")
    await until(lambda: handled.names == ["1"])
    (lane,) = consumer._lanes
    lane._stream._source._consumer._fetcher._fetch_task.cancel()
    for name in ("2", "3"):  # a fetch that is under way may still bring the first
        await harness.publish(topic, name)
        await until(lambda name=name: handled.names[-1] == name)
    await harness.close()


async def test_what_a_peer_has_read_since_the_group_gave_us_up_is_not_taken_for_a_loss(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a process that stood still while it had its first records in hand."""
    harness = await open_harness(kafka)
    topic, group, handled = await harness.topic(), harness.group(), Handled()
    await harness.publish(topic, "1", "2", "3")
    look, given_up = AIOKafkaConsumer.committed, list[AIOKafkaConsumer]()

    async def late(consumer: AIOKafkaConsumer, partition: TopicPartition) -> Any:
        if not given_up:
            given_up.append(consumer)
            coordinator = vars(consumer)["_coordinator"]
            await coordinator._send_req(LeaveGroupRequest(group, coordinator.member_id))
            async with AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False) as peer:
                peer.assign([partition])
                await peer.commit({partition: 2})
        return await look(consumer, partition)

    monkeypatch.setattr(AIOKafkaConsumer, "committed", late)
    with capture_logs() as logs:
        await harness.consumer([topic], handled, group).start()
        await until(lambda: handled.names == ["3"])
    assert not [each for each in logs if "records_lost" in each["event"]]
    await harness.close()


@pytest.mark.parametrize("by_pattern", [False, True])
async def test_who_reads_a_topic_that_kafka_has_lost_is_not_ready_until_it_is_there_again(
    kafka: str, monkeypatch: pytest.MonkeyPatch, by_pattern: bool
) -> None:
    monkeypatch.setattr(stream_module, "LAG_EVERY_SECONDS", 0.1)
    monkeypatch.setattr(kafka_source, "METADATA_MAX_AGE_MS", 200)
    harness = await open_harness(kafka)
    topic, handled = await harness.topic(), Handled()
    read = TopicFamily(f"^{re.escape(topic.name)}$", topic) if by_pattern else topic
    consumer = harness.consumer([read], handled)
    await consumer.start()
    await harness.publish(topic, "1")
    await until(lambda: handled.names == ["1"])
    assert consumer.ready
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.delete_topics([topic.name])
    await admin.close()
    (lane,) = consumer._lanes
    await until(lambda: not lane._stream.assignment(), "Kafka's word that nothing is there")
    await until(lambda: not consumer.ready)
    await harness.declare(topic)
    await until(lambda: consumer.ready and lane._stream.assignment())
    await harness.close()
