"""The ground of the sending tests: a carrier as a program of its own, and a gateway with instances and all that they tell."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import Counter

from deploy.local.ports import free_port
from libs.bus.admin import ensure_topics
from libs.bus.codec import decoder_for, encode
from libs.bus.producer import Producer
from libs.contracts import topics
from libs.contracts.events import (
    Event,
    GatewayReceipt,
    MessageEvent,
    Priority,
    SmsDeferred,
    SmsDispatch,
    SmsInbound,
    SmsReturned,
    SmsStatus,
    person_key,
)
from libs.contracts.statuses import Status
from libs.service_kit.config_file import SmppGateway
from libs.service_kit.kafka import Cluster
from libs.storage.database import Pool
from services.dispatcher.drivers.table import make_driver
from services.dispatcher.instance import Instance
from services.dispatcher.settings import DispatcherSettings
from tests.services.dispatcher.builders import dispatch_event

RETURNED, DEFERRED = ([of(priority) for priority in Priority] for of in (topics.returned, topics.deferred))
USED = (topics.STATUS, *RETURNED, *DEFERRED, topics.RECEIPTS, topics.INBOUND, topics.COMMANDS)


@dataclass
class Carrier:
    """The simulated carrier as a program of its own."""

    smpp_port: int
    url: str
    session: aiohttp.ClientSession

    async def behave(self, **behaviour: object) -> None:
        async with self.session.put(f"{self.url}/behaviour", json=behaviour) as answer:
            assert answer.status == 200, await answer.text()

    async def act(self, name: str, **fields: object) -> None:
        async with self.session.post(f"{self.url}/actions/{name}", json=fields) as answer:
            assert answer.status < 300, await answer.text()

    async def accepted(self) -> list[dict[str, object]]:
        async with self.session.get(f"{self.url}/ledger") as answer:
            lines = (await answer.text()).splitlines()
        return [entry for line in lines if (entry := json.loads(line)) and entry.get("accepted", True)]


@pytest.fixture(scope="package")
async def carrier_program(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Carrier]:
    smpp, http = free_port(), free_port()
    directory: Path = tmp_path_factory.mktemp("carrier")
    environment = {
        "PATH": "/usr/bin:/bin",
        "CARRIER_SMPP_PORT": str(smpp),
        "CARRIER_HTTP_PORT": str(http),
        "CARRIER_LEDGER_DIRECTORY": str(directory),
    }
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.simulated_carrier.main", env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    async with aiohttp.ClientSession() as session:
        carrier = Carrier(smpp, f"http://127.0.0.1:{http}", session)
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{carrier.url}/health/ready") as answer:
                        if answer.status == 200:
                            break
                await asyncio.sleep(0.05)
        yield carrier
    program.terminate()
    await program.wait()


@pytest.fixture
async def carrier(carrier_program: Carrier) -> Carrier:
    async with carrier_program.session.delete(f"{carrier_program.url}/behaviour"):
        pass
    async with carrier_program.session.delete(f"{carrier_program.url}/ledger"):
        pass
    return carrier_program


@dataclass
class World:
    """One gateway of its own, with instances that can be started and stopped, and everything they tell."""

    kafka: str
    pool: Pool
    carrier: Carrier
    gateway: SmppGateway
    producer: Producer
    consumer: AIOKafkaConsumer
    statuses: dict[UUID, list[SmsStatus]] = field(default_factory=dict)
    returned: dict[UUID, SmsReturned] = field(default_factory=dict)
    deferred: dict[UUID, SmsDeferred] = field(default_factory=dict)
    receipts: list[GatewayReceipt] = field(default_factory=list)
    inbound: list[SmsInbound] = field(default_factory=list)
    running: list[tuple[Instance, asyncio.Task[None]]] = field(default_factory=list)

    def settings(self) -> DispatcherSettings:
        return DispatcherSettings.model_validate(
            {
                "kafka_bootstrap_servers": self.kafka,
                "ops_port": 0,
                "internal_token": "x" * 16,
                "postgres_dsn": "postgresql://unused",
                "postrider_config": "unused",
                "dispatcher_gateway": self.gateway.id,
                "inbound_key": "a key for the tests",
                "dispatcher_drain_seconds": 5,
                "dispatcher_most_legs": 100,
            }
        )

    def make(self) -> Instance:
        return Instance(self.settings(), self.gateway, self.pool, self.producer, make_driver)

    def start(self) -> Instance:
        instance = self.make()
        self.running.append((instance, asyncio.create_task(instance.run())))
        return instance

    async def stop(self) -> None:
        for instance, task in self.running:
            instance.stop()
            await task
        self.running.clear()

    async def send(self, *events: MessageEvent[SmsDispatch]) -> None:
        for event in events:
            topic = topics.dispatch(self.gateway.id, event.data.message.priority)
            key = person_key(event.data.message.tenant, event.data.message.recipient)
            await self.producer.publish(topic.name, [(key, encode(event))])

    def event(self, text: str = "hello", **more: object) -> MessageEvent[SmsDispatch]:
        return dispatch_event(text, gateway=self.gateway.id, **more)  # type: ignore[arg-type]

    def words(self, message_id: UUID) -> list[str]:
        return [str(s.status) for s in self.statuses.get(message_id, [])]

    async def until(self, condition: Callable[[], bool], seconds: float = 40) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                for partition, records in (await self.consumer.getmany(timeout_ms=50)).items():
                    for record in records:
                        self._take(partition.topic, record.value)
                for _, task in self.running:
                    if task.done():
                        task.result()

    def _take(self, topic: str, value: bytes) -> None:
        if topic == topics.STATUS.name:
            status = decoder_for(MessageEvent[SmsStatus])(value)
            self.statuses.setdefault(status.subject, []).append(status.data)
        elif topic in {t.name for t in RETURNED}:
            returned = decoder_for(MessageEvent[SmsReturned])(value)
            assert topic == topics.returned(returned.data.message.priority).name
            self.returned[returned.subject] = returned.data
        elif topic in {t.name for t in DEFERRED}:
            deferred = decoder_for(MessageEvent[SmsDeferred])(value)
            assert topic == topics.deferred(deferred.data.message.priority).name
            self.deferred[deferred.subject] = deferred.data
        elif topic == topics.RECEIPTS.name:
            receipt = decoder_for(Event[GatewayReceipt])(value).data
            if receipt.gateway == self.gateway.id:
                self.receipts.append(receipt)
        else:
            inbound = decoder_for(Event[SmsInbound])(value).data
            if inbound.gateway == self.gateway.id:
                self.inbound.append(inbound)


MakeWorld = Callable[..., "contextlib.AbstractAsyncContextManager[World]"]


@pytest.fixture
def world(kafka: str, pool: Pool, carrier: Carrier) -> MakeWorld:
    @contextlib.asynccontextmanager
    async def make(**gateway: object) -> AsyncIterator[World]:
        given = {
            "id": f"g-{uuid4().hex[:12]}",
            "type": "smpp",
            "host": "127.0.0.1",
            "port": carrier.smpp_port,
            "system_id": uuid4().hex[:8],
            "binds_allowed": 4,
        } | gateway
        configured = SmppGateway.model_validate(given)
        dispatching = [topics.dispatch(configured.id, priority) for priority in Priority]
        await ensure_topics(Cluster(kafka), [*USED, *dispatching])
        producer = Producer(Cluster(kafka), "test")
        await producer.start()
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="latest")
        await consumer.start()
        consumer.assign([TopicPartition(t.name, p) for t in USED for p in range(t.partitions)])
        await consumer.seek_to_end()
        made = World(kafka, pool, carrier, configured, producer, consumer)
        try:
            yield made
        finally:
            await made.stop()
            await consumer.stop()
            await producer.stop()

    return make


def all_told(world: World, events: Sequence[MessageEvent[SmsDispatch]], status: Status) -> Callable[[], bool]:
    """Whether this was told of each by now."""
    return lambda: all(str(status) in world.words(e.subject) for e in events)


def counted(counter: Counter, world: World, outcome: str) -> float:
    """What a counter has come to for the world's gateway."""
    wanted = {"gateway": world.gateway.id, "outcome": outcome}
    [metric] = counter.collect()
    return next((s.value for s in metric.samples if s.labels == wanted and s.name.endswith("_total")), 0)
