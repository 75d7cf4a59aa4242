import asyncio
from random import randbytes
from typing import Any
from zlib import crc32

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, OutOfOrderSequenceNumber

from libs.bus.errors import PublishFailed, RecordTooLarge
from libs.bus.producer import MAX_RECORD_BYTES, Producer
from tests.conformance.bus_harness import Harness
from tests.waiting import until


async def test_a_key_goes_to_the_partition_of_its_crc32(bus: Harness) -> None:
    topic = await bus.topic(partitions=4)
    keys = [f"t/client/{n}".encode() for n in range(20)]
    await bus.producer.publish(topic.name, [(key, b"x") for key in keys])
    for partition in range(4):
        stored = [record.key for record in await bus.stored(topic.name, partition)]
        assert stored == [key for key in keys if crc32(key) % 4 == partition]


async def test_what_has_no_key_goes_with_the_rest_of_its_call(bus: Harness) -> None:
    topic = await bus.topic(partitions=2)
    for call in (b"1", b"2"):
        await bus.producer.publish(topic.name, [(None, call)] * 3)
    stored = [[record.value for record in await bus.stored(topic.name, partition)] for partition in (0, 1)]
    assert sorted(stored) == [[b"1"] * 3, [b"2"] * 3]


async def test_a_call_larger_than_a_batch_is_sent_in_several_and_keeps_its_order(bus: Harness) -> None:
    topic = await bus.topic()
    values = [str(n).encode() * 100 for n in range(10_000)]
    await bus.producer.publish(topic.name, [(b"k", value) for value in values])
    assert [record.value for record in await bus.stored(topic.name)] == values


async def test_a_call_is_over_only_when_every_partition_has_acknowledged(
    bus: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await bus.topic(partitions=2)
    send, may_go = AIOKafkaProducer.send_batch, asyncio.Event()

    async def send_batch(kafka: AIOKafkaProducer, batch: Any, topic: str, *, partition: int) -> Any:
        if partition == 1:
            await may_go.wait()
        return await send(kafka, batch, topic, partition=partition)

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", send_batch)
    producer = Producer(bus.cluster, "test")
    call = asyncio.create_task(producer.publish(topic.name, [(str(n).encode(), b"x") for n in range(20)]))
    first = await until(lambda: producer._lanes.get((topic.name, 0)))
    await first.idle.wait()
    await asyncio.sleep(0)
    assert not call.done()
    may_go.set()
    await call
    assert sum([len(await bus.stored(topic.name, partition)) for partition in (0, 1)]) == 20
    await producer.stop()


async def test_a_record_larger_than_a_batch_is_sent_by_itself(bus: Harness) -> None:
    topic = await bus.topic()
    values = [b"a", b"b" * (1024 * 1024), b"c" * (MAX_RECORD_BYTES - 200), b"d"]
    await bus.producer.publish(topic.name, [(b"k", value) for value in values])
    assert [record.value for record in await bus.stored(topic.name)] == values


async def test_a_record_larger_than_its_topic_takes_is_refused_by_name_and_nothing_is_sent(bus: Harness) -> None:
    topic = await bus.topic()
    with pytest.raises(RecordTooLarge, match=rf"^{topic.name}: a record of \d+ bytes; at most {MAX_RECORD_BYTES} "):
        await bus.producer.publish(topic.name, [(b"k", b"fine"), (b"k", b"x" * MAX_RECORD_BYTES)])
    assert await bus.stored(topic.name) == []


async def test_the_largest_record_still_fits_among_the_dead_letters(bus: Harness) -> None:
    topic = await bus.topic()
    bad = b"x" * (MAX_RECORD_BYTES - 200)
    await bus.producer.publish(topic.name, [(b"k", bad), (b"k", bad)])
    stream = bus.stream([topic])
    await stream.start()
    while len(letters := await bus.dead_letters(topic)) < 2:
        await stream.getmany(timeout_ms=1000, max_records=10)
    assert [letter.value for letter in letters] == [bad, bad]


async def small_topic(bus: Harness) -> str:
    """One that takes batches of 1,000 octets."""
    name = bus.undeclared().name
    admin = AIOKafkaAdminClient(bootstrap_servers=bus.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1, topic_configs={"max.message.bytes": "1000"})])
    await admin.close()
    return name


async def test_what_the_broker_refuses_for_its_size_fails_and_the_next_call_succeeds(bus: Harness) -> None:
    name = await small_topic(bus)
    with pytest.raises(RecordTooLarge, match=f"^{name}: MessageSizeTooLargeError$"):
        await bus.producer.publish(name, [(b"k", randbytes(2000))])
    for n in range(3):
        await bus.producer.publish(name, [(b"k", str(n).encode())])
    many = [randbytes(300) for _ in range(9)]
    await bus.producer.publish(name, [(b"k", value) for value in many])
    assert [record.value for record in await bus.stored(name)] == [b"0", b"1", b"2", *many]


@pytest.mark.parametrize("fault", [OutOfOrderSequenceNumber, MessageSizeTooLargeError])
async def test_what_leaves_a_hole_in_the_sequence_is_sent_again_by_a_new_connection(
    bus: Harness, monkeypatch: pytest.MonkeyPatch, fault: type[KafkaError]
) -> None:
    topic = await bus.topic()
    send, asked = AIOKafkaProducer.send_batch, list[AIOKafkaProducer]()

    async def send_batch(kafka: AIOKafkaProducer, *batch: Any, **where: Any) -> Any:
        asked.append(kafka)
        if len(asked) == 1:
            raise fault
        return await send(kafka, *batch, **where)

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", send_batch)
    await bus.producer.publish(topic.name, [(b"k", b"1"), (b"k", b"2")])
    assert asked[0] not in asked[1:]
    assert [record.value for record in await bus.stored(topic.name)] == [b"1", b"2"]


async def test_batches_are_compressed(bus: Harness) -> None:
    name = await small_topic(bus)
    alike = [b'{"status":"delivered"}'] * 100
    await bus.producer.publish(name, [(b"k", value) for value in alike])
    stored = await bus.stored(name)
    assert [record.value for record in stored] == alike
    assert len({record.timestamp for record in stored}) == 1, "they came in several batches"


async def test_a_missing_topic_fails_in_time_by_name_and_holds_up_no_other(bus: Harness) -> None:
    topic, missing = await bus.topic(), bus.undeclared()
    producer = Producer(bus.cluster, "test", delivery_timeout=1.5)
    await producer.start()
    waiting = asyncio.create_task(producer.publish(missing.name, [(b"k", b"x")]))
    await asyncio.sleep(0)
    await producer.publish(topic.name, [(b"k", b"x")])
    assert not waiting.done()
    with pytest.raises(PublishFailed, match=f"^{missing.name}: not acknowledged within 1.5 s"):
        await waiting
    await producer.stop()


async def test_calls_wait_for_room_and_are_served_in_their_order(bus: Harness) -> None:
    topic = await bus.topic()
    producer = Producer(bus.cluster, "test", max_buffered_bytes=1000)
    await producer.start()
    values = [str(n).encode().zfill(400) for n in range(50)]
    await asyncio.gather(*(producer.publish(topic.name, [(b"k", value)]) for value in values))
    assert [record.value for record in await bus.stored(topic.name)] == values
    await producer.stop()


async def test_a_call_may_be_larger_than_the_room(bus: Harness) -> None:
    topic = await bus.topic()
    producer = Producer(bus.cluster, "test", max_buffered_bytes=10)
    await asyncio.gather(*(producer.publish(topic.name, [(b"k", b"x" * 100)]) for _ in range(3)))
    assert len(await bus.stored(topic.name)) == 3
    await producer.stop()


async def test_stop_sends_what_is_queued_and_then_nothing_is_taken(bus: Harness) -> None:
    topic = await bus.topic()
    producer = Producer(bus.cluster, "test")
    await producer.start()
    calls = [asyncio.create_task(producer.publish(topic.name, [(b"k", b"x" * 1000)] * 500)) for _ in range(5)]
    await producer.publish(topic.name, [(b"k", b"first")])
    await producer.stop()
    await asyncio.gather(*calls)
    assert len(await bus.stored(topic.name)) == 2501
    with pytest.raises(PublishFailed, match="stopped"):
        await producer.publish(topic.name, [(b"k", b"x")])


async def test_a_cancelled_call_leaves_the_others_alone(bus: Harness) -> None:
    topic = await bus.topic()
    calls = [asyncio.create_task(bus.producer.publish(topic.name, [(b"k", str(n).encode())])) for n in range(20)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results[1::2]] == [type(None)] * 10
    stored = [record.value for record in await bus.stored(topic.name)]
    assert [value for value in stored if int(value or 0) % 2] == [str(n).encode() for n in range(1, 20, 2)]
