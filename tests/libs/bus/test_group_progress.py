"""What a group has not committed yet, on a real Kafka."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import TopicPartition

from deploy.local.ports import free_port
from libs.bus.admin import ensure_topics
from libs.bus.group_progress import GroupProgress
from libs.bus.producer import Producer
from libs.contracts.events import SmsStatus
from libs.contracts.topics import Topic
from libs.service_kit.kafka import Cluster
from tests.services.traffic import commit


class Ground:
    """A topic of two partitions, and a group that is named like it."""

    def __init__(self, kafka: str) -> None:
        self.kafka = kafka
        self.name = f"progress.{uuid4().hex[:12]}"
        self.topic = Topic(name=self.name, purpose="test", data=SmsStatus, key="message id", partitions=2)
        self.progress = GroupProgress(Cluster(kafka), self.name, [self.topic])
        self.producer = Producer(Cluster(kafka), client_id="test")

    async def behind(self) -> int:
        return await self.progress.behind(await self.progress.ends())

    async def ends(self) -> tuple[int, int]:
        ends = await self.progress.ends()
        return ends[TopicPartition(self.name, 0)], ends[TopicPartition(self.name, 1)]

    async def publish(self, count: int) -> None:
        await self.producer.publish(self.name, [(str(n).encode(), b"x") for n in range(count)])

    async def commit(self, partition: int, offset: int) -> None:
        await commit(self.kafka, self.name, {TopicPartition(self.name, partition): offset})

    async def delete_before(self, partition: int, offset: int) -> None:
        """As the retention does."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        await admin.delete_records({TopicPartition(self.name, partition): RecordsToDelete(offset)})
        await admin.close()


@pytest.fixture
async def ground(kafka: str) -> AsyncIterator[Ground]:
    ground = Ground(kafka)
    await ensure_topics(Cluster(kafka), [ground.topic])
    await ground.producer.start()
    await ground.progress.start()
    yield ground
    await ground.progress.stop()
    await ground.producer.stop()


async def test_a_group_is_behind_by_what_it_has_not_committed_of_all_partitions(ground: Ground) -> None:
    assert await ground.behind() == 0
    await ground.publish(100)
    assert await ground.behind() == 100
    first, second = await ground.ends()
    assert first and second, "one partition got nothing"
    await ground.commit(0, first - 1)
    assert await ground.behind() == 1 + second
    await ground.commit(1, second)
    assert await ground.behind() == 1
    ends = await ground.progress.ends()
    await ground.publish(10)
    assert await ground.progress.behind(ends) == 1


async def test_what_is_past_its_retention_is_not_waited_for(ground: Ground) -> None:
    await ground.publish(100)
    first, second = await ground.ends()
    await ground.commit(1, 1)
    await ground.delete_before(0, first)
    await ground.delete_before(1, 3)
    assert await ground.behind() == second - 3


async def test_while_kafka_is_away_it_says_so_and_can_be_started_again(kafka: str) -> None:
    progress = GroupProgress(Cluster(f"127.0.0.1:{free_port()}"), "nobody", [])
    for _ in range(2):
        with pytest.raises(KafkaConnectionError):
            await progress.start()
    await progress.stop()
