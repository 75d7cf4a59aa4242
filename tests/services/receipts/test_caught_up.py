"""Whether a group has consumed what was there, on a real Kafka."""

from uuid import uuid4

from aiokafka.structs import TopicPartition

from libs.bus.admin import ensure_topics
from libs.bus.group_progress import GroupProgress
from libs.bus.producer import Producer
from libs.contracts.events import SmsStatus
from libs.contracts.topics import Topic
from libs.service_kit.kafka import Cluster
from services.receipts.caught_up import CaughtUp
from tests.services.traffic import commit


async def test_it_has_caught_up_once_what_was_there_at_the_call_before_is_committed(kafka: str) -> None:
    name = f"progress.{uuid4().hex[:12]}"
    topic = Topic(name=name, purpose="test", data=SmsStatus, key="message id", partitions=2)
    await ensure_topics(Cluster(kafka), [topic])
    producer, progress = Producer(Cluster(kafka), client_id="test"), GroupProgress(Cluster(kafka), name, [topic])
    caught_up = CaughtUp(progress)
    await producer.start()
    await progress.start()

    async def publish(count: int) -> None:
        for key in (b"a", b"b", b"c", b"d"):
            await producer.publish(name, [(key, b"x")] * count)

    try:
        assert [await caught_up() for _ in range(2)] == [False, True]  # an empty topic holds nothing back
        await publish(3)
        assert await caught_up()  # it came since the last call
        assert not await caught_up()
        ends = await progress.ends()
        first, second = (TopicPartition(name, number) for number in range(2))
        assert all(ends.values())
        await commit(kafka, name, {first: ends[first]})
        assert not await caught_up()
        await commit(kafka, name, {second: ends[second]})
        await publish(1)
        assert await caught_up()
        assert not await caught_up()
    finally:
        await progress.stop()
        await producer.stop()
