"""The projection as the process that it is, fed on Kafka and read over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from pydantic import SecretStr
from pydantic_core import MultiHostUrl

from libs.bus.codec import encode
from libs.bus.port import Outgoing
from libs.bus.producer import Producer
from libs.contracts import topics
from libs.contracts.events import Priority
from libs.service_kit.config_file import Configuration
from libs.service_kit.internal import HEADER, TENANT_HEADER
from libs.service_kit.kafka import Cluster
from services.projection.settings import ProjectionSettings
from tests.services.program import TOKEN, ServiceProgram
from tests.services.projection.stories import TENANT, Told
from tests.services.traffic import commit

CONFIGURATION = """
gateways:
  - {id: demo, type: smpp, host: 127.0.0.1, port: 2775, systemId: demo, sourceAddress: BANK}
  - {id: spare, type: smpp, host: 127.0.0.1, port: 2776, systemId: spare, sourceAddress: BANK}
defaultGateway: demo
defaultRegion: KE
"""
CONFIGURED = Configuration.model_validate(yaml.safe_load(CONFIGURATION))
READ = (
    *(of(priority) for of in (topics.requested, topics.returned, topics.deferred) for priority in Priority),
    topics.STATUS,
    topics.COMMANDS,
    *(topics.dispatch(gateway, priority) for gateway in ("demo", "spare") for priority in Priority),
)


def settings(dsn: str, kafka: str, directory: Path, **others: Any) -> ProjectionSettings:
    """Of one that runs in the test's own process."""
    return ProjectionSettings(
        kafka_bootstrap_servers=kafka,
        postgres_dsn=MultiHostUrl(dsn),
        internal_token=SecretStr(TOKEN),
        postrider_config=directory,
        **{"ops_port": 0, "projection_keep_days": 20_000, **others},
    )


class Program(ServiceProgram):
    """One replica of the projection."""

    SERVICE = "projection"
    CONFIGURATION = CONFIGURATION

    async def get(self, path: str, tenant: str = TENANT, token: str = TOKEN) -> tuple[int, bytes]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                f"http://127.0.0.1:{self.port}{path}", headers={HEADER: token, TENANT_HEADER: tenant}
            ) as response,
        ):
            return response.status, await response.read()


class Traffic:
    """Publishes what the service reads, and knows how much of it there is."""

    def __init__(self, kafka: str) -> None:
        self._kafka = kafka
        self._producer = Producer(Cluster(kafka), client_id="test")
        self._consumer = AIOKafkaConsumer(bootstrap_servers=kafka)

    async def start(self) -> None:
        await self._producer.start()
        await self._consumer.start()

    async def stop(self) -> None:
        await self._consumer.stop()
        await self._producer.stop()

    async def publish(self, told: Sequence[Told]) -> None:
        await self._producer.publish_many([Outgoing(topic, key, encode(event)) for topic, key, event in told])

    async def raw(self, topic: str, *values: bytes) -> None:
        await self._producer.publish(topic, [(b"poison", value) for value in values])

    async def ends(self) -> dict[TopicPartition, int]:
        """The end of every partition that has records."""
        partitions = [TopicPartition(t.name, p) for t in READ for p in range(t.partitions)]
        found = await self._consumer.end_offsets(partitions)
        return {partition: end for partition, end in found.items() if end}

    async def count(self, topic: str) -> int:
        partition = TopicPartition(topic, 0)
        return (await self._consumer.end_offsets([partition]))[partition]

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        """As the service, which has no members now."""
        await commit(self._kafka, "projection", offsets)

    async def committed(self) -> dict[TopicPartition, int]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._kafka, group_id="projection", enable_auto_commit=False)
        await consumer.start()
        found = {partition: await consumer.committed(partition) for partition in await self.ends()}
        await consumer.stop()
        return {partition: offset for partition, offset in found.items() if offset is not None}
