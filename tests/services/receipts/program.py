"""The receipts service as the process that it is, and what goes in and comes out of it on Kafka."""

import asyncio
from typing import ClassVar

import aiohttp
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from libs.bus.codec import encode
from libs.bus.producer import Producer
from libs.contracts import topics
from libs.contracts.events import Event, GatewayReceipt, MessageEvent, SmsStatus, receipt_key
from libs.contracts.topics import Topic
from libs.service_kit.internal import HEADER
from services.receipts.main import CONSUMED
from services.receipts.statuses import SOURCE
from tests.services.program import TOKEN, ServiceProgram
from tests.services.receipts.examples import KEY, read_status

CONFIGURATION = """
gateways:
  - {id: demo, type: smpp, host: 127.0.0.1, port: 2775, systemId: demo}
defaultGateway: demo
"""


class Program(ServiceProgram):
    """The receipts service."""

    SERVICE = "receipts"
    CONFIGURATION = CONFIGURATION
    ENVIRONMENT: ClassVar[dict[str, str]] = {"RECEIPTS_DESTINATION_KEY": KEY.decode()}

    async def get(self, path: str, token: str = TOKEN) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}{path}", headers={HEADER: token}) as response,
        ):
            return response.status, await response.text()


class Traffic:
    """Publishes what the service reads, and collects what it writes, dead letters included, from the beginning."""

    def __init__(self, kafka: str) -> None:
        self._kafka = kafka
        self._producer = Producer(kafka, client_id="test")
        self._consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
        self._reading: asyncio.Task[None] | None = None
        self.records: list[ConsumerRecord] = []

    async def start(self) -> None:
        await self._producer.start()
        await self._consumer.start()
        read = [(topics.STATUS.name, topics.STATUS.partitions), *((t.dead_letter, 1) for t in CONSUMED)]
        self._consumer.assign([TopicPartition(name, p) for name, count in read for p in range(count)])
        self._reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        await self._consumer.stop()
        await self._producer.stop()

    async def _read(self) -> None:
        async for record in self._consumer:
            self.records.append(record)

    async def statuses(self, *events: MessageEvent[SmsStatus]) -> None:
        await self._producer.publish(topics.STATUS.name, [(str(e.subject).encode(), encode(e)) for e in events])

    async def receipts(self, *events: Event[GatewayReceipt]) -> None:
        records = [(receipt_key(e.data.gateway, e.data.provider_id), encode(e)) for e in events]
        await self._producer.publish(topics.RECEIPTS.name, records)

    async def raw(self, topic: Topic, *values: bytes) -> None:
        await self._producer.publish(topic.name, [(b"poison", value) for value in values])

    def said(self, provider_id: str | None = None) -> list[MessageEvent[SmsStatus]]:
        """What the service has published (about an id), duplicates included."""
        values = [
            r.value for r in self.records if r.topic == topics.STATUS.name and SOURCE.encode() in (r.value or b"")
        ]
        events = [read_status(value) for value in values]
        return [e for e in events if provider_id is None or e.data.provider_id == provider_id]

    def dead(self, topic: Topic) -> list[ConsumerRecord]:
        return [r for r in self.records if r.topic == topic.dead_letter]

    async def set_back(self) -> None:
        """Set the service's group, which has no members now, back to the beginning."""
        partitions = [TopicPartition(t.name, p) for t in CONSUMED for p in range(t.partitions)]
        consumer = AIOKafkaConsumer(bootstrap_servers=self._kafka, group_id="receipts", enable_auto_commit=False)
        await consumer.start()
        consumer.assign(partitions)
        await consumer.commit(dict.fromkeys(partitions, 0))
        await consumer.stop()
