"""The API gateway as a process of its own, and the records that it leaves in Kafka."""

import asyncio
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from deploy import REPOSITORY
from deploy.local.ports import free_port
from deploy.local.processes import Child, describe_exit
from libs.bus.codec import decoder
from libs.contracts.events import MessageEvent, SmsRequested
from libs.contracts.topics import REQUESTED, REQUESTED_HIGH
from tests.services.api_gateway.fakes import TOKEN, Answer
from tests.waiting import until

API_KEY = "integration-key-0123456789"
VALIDITY = timedelta(hours=2)

_decode = decoder(REQUESTED)


def configuration(directory: Path, tenant: str) -> Path:
    """A configuration file with one key of this tenant."""
    file = directory / f"{tenant}.yaml"
    file.write_text(
        f"""
gateways:
  - {{id: demo, type: smpp, host: 127.0.0.1, port: 2775, systemId: demo}}
defaultGateway: demo
validitySeconds: {VALIDITY.seconds}
apiKeys:
  - {{name: test, tenant: {tenant}, key: {API_KEY}, scopes: ["sms:send", "sms:read", "sms:cancel", "contacts:write"]}}
"""
    )
    return file


def new_tenant() -> str:
    """Topics are shared by all tests: each looks at its own tenant's records only."""
    return f"t{uuid.uuid4().hex[:12]}"


@dataclass
class GatewayProcess:
    child: Child
    url: str
    ops_url: str
    session: aiohttp.ClientSession

    async def ready(self, within: float = 40) -> None:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if not self.child.running:
                raise AssertionError(f"ended: {describe_exit(self.child.exit_code)}\n{self.child.log_tail()}")
            if (await self.health())[0] == 200:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"not ready: {await self.health()}\n{self.child.log_tail()}")

    async def health(self) -> tuple[int, Any]:
        try:
            async with self.session.get(f"{self.ops_url}/health/ready") as response:
                return response.status, await response.json()
        except aiohttp.ClientError as error:
            return 0, str(error)

    async def until_missing(self, name: str) -> None:
        """Wait until it says that it is not ready for want of this."""

        async def said() -> bool:
            status, health = await self.health()
            return status == 503 and name in health["missing"]

        await until(said, name)

    async def send(self, body: Mapping[str, Any] | None = None, key: str | None = None) -> Answer:
        """Raises aiohttp's ClientError when the process dies meanwhile."""
        return await self.post("/sms", body or {"message": "Hello", "clientId": "1"}, key)

    async def post(self, path: str, body: Mapping[str, Any] | None = None, key: str | None = None) -> Answer:
        """Raises aiohttp's ClientError when the process dies meanwhile."""
        headers = {"Authorization": f"Bearer {API_KEY}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        async with self.session.post(f"{self.url}{path}", json=body, headers=headers) as response:
            return Answer(response.status, response.headers, json.loads(await response.read()))


@asynccontextmanager
async def gateway_process(
    directory: Path, kafka: str, dsn: str, tenant: str, **environment: str
) -> AsyncIterator[GatewayProcess]:
    api, ops = free_port(), free_port()
    settings = {
        "API_PORT": str(api),
        "OPS_PORT": str(ops),
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "POSTGRES_DSN": dsn,
        "POSTRIDER_CONFIG": str(configuration(directory, tenant)),
        "INTERNAL_TOKEN": TOKEN,
        "RESOLVER_URL": f"http://127.0.0.1:{free_port()}",
        "PROJECTION_URL": f"http://127.0.0.1:{free_port()}",
        "INBOUND_URL": f"http://127.0.0.1:{free_port()}",
        **environment,
    }
    child = await Child.spawn(
        (sys.executable, "-m", "services.api_gateway.main"),
        log=directory / f"api-{api}.log",
        environment=settings,
        directory=REPOSITORY,
    )
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        try:
            yield GatewayProcess(child, f"http://127.0.0.1:{api}", f"http://127.0.0.1:{ops}", session)
        finally:
            await child.stop(budget=25)


async def published(kafka: str, tenant: str) -> list[tuple[ConsumerRecord, MessageEvent[SmsRequested]]]:
    """The tenant's requested events, all that Kafka holds now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    await consumer.start()
    try:
        found = []
        partitions = [
            TopicPartition(topic.name, partition)
            for topic in (REQUESTED, REQUESTED_HIGH)
            for partition in range(topic.partitions)
        ]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions)
        left = {p for p, end in ends.items() if end > await consumer.position(p)}
        while left:
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    if record.key is not None and record.key.startswith(f"{tenant}/".encode()):
                        found.append((record, _decode(record.value)))
                if await consumer.position(partition) >= ends[partition]:
                    left.discard(partition)
        return found  # type: ignore[return-value]
    finally:
        await consumer.stop()
