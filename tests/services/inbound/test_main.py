"""The inbound service as a process, between a real Kafka and a real PostgreSQL: killed, started again, set back."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from deploy.local.kafka import SHORT_RUN, Kafka
from libs.bus.admin import ensure_topics
from libs.bus.codec import encode
from libs.bus.producer import Producer
from libs.contracts.events import Event, SmsInbound
from libs.service_kit.internal import HEADER, TENANT_HEADER
from libs.service_kit.kafka import Cluster
from services.inbound.main import CONSUMED
from tests.conftest import DatabaseFactory
from tests.services.inbound.examples import SENDER, event, parts
from tests.services.program import TOKEN, ServiceProgram
from tests.waiting import WITHIN_SECONDS, until

LONG = "All of this text, which is longer than one part can hold. " * 7


class Program(ServiceProgram):
    """The inbound service, with its topic."""

    SERVICE = "inbound"
    CONFIGURATION = """
gateways:
  - {id: demo, type: smpp, host: 127.0.0.1, port: 2775, systemId: demo, tenant: clinic}
defaultGateway: demo
defaultRegion: KE
"""

    async def came(self, *events: Event[SmsInbound]) -> None:
        producer = Producer(Cluster(self.kafka), client_id="test")
        await producer.start()
        await producer.publish(CONSUMED[0].name, [(b"one sender", encode(event)) for event in events])
        await producer.stop()

    async def ask(self, path: str, tenant: str | None = "clinic") -> tuple[int, Any]:
        headers = {HEADER: TOKEN} | ({TENANT_HEADER: tenant} if tenant else {})
        url = f"http://127.0.0.1:{self.port}/internal/inbound{path}"
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
            return response.status, json.loads(await response.read())

    async def texts(self, count: int) -> list[str]:
        """What is shown, once it is so many messages, oldest first."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                _, page = await self.ask("?limit=500")
                if len(page["items"]) >= count and all(item["complete"] for item in page["items"]):
                    return [item["text"] for item in reversed(page["items"])]
                await asyncio.sleep(0.05)


@pytest.fixture
async def program(server_directory: Path, postgres: DatabaseFactory, tmp_path: Path) -> AsyncIterator[Program]:
    """With a broker of its own: the service's topic and group have fixed names."""
    async with Kafka(server_directory / f"kafka-{tmp_path.name}", java_options=SHORT_RUN) as broker:
        await ensure_topics(Cluster(broker.bootstrap_servers), CONSUMED)
        program = Program(tmp_path / "inbound", broker.bootstrap_servers, await postgres())
        yield program
        await program.stop()


async def test_killed_at_any_point_it_shows_each_message_once(program: Program) -> None:
    await program.came(event(b"before"), *parts(LONG, 7, at=10))
    for point in ("receive-store", "store-commit"):
        child = await program.start(crash_at=f"inbound.{point}", ready=False)
        await until(lambda child=child: not child.running, "the crash")
        assert child.exit_code == -signal.SIGKILL
    await program.start()
    await program.came(event(b"after", at=20, source="0700000017"))  # as dialled in the configured region
    assert await program.texts(3) == ["before", LONG, "after"]
    connection = await asyncpg.connect(program.dsn)
    assert await connection.fetchval("SELECT count(*) FROM inbound.parts") == 5
    await connection.close()

    assert [m["source"] for m in (await program.ask(""))[1]["items"]] == [SENDER] * 3
    assert len((await program.ask("?number=0700000017"))[1]["items"]) == 3
    assert (await program.ask("", tenant="bank"))[1]["items"] == []
    for wrong in ("?limit=0", "?cursor=x", "?from=2026-01-31T08:00:00", "?nobody=1"):
        status, problem = await program.ask(wrong)
        assert (status, len(problem["errors"])) == (400, 1)
    assert (await program.ask("", tenant=None))[0] == 400
    for unknown in ("/nonsense", "/019b30cb-7a50-7a55-9d3e-2b1f0c8e7a41"):
        assert (await program.ask(unknown))[0] == 404
    log = (program.directory / "inbound.log").read_text()
    assert "254700000017" not in log
    assert "before" not in log


async def test_a_read_has_as_long_as_is_configured(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Program, "ENVIRONMENT", {"INBOUND_READ_SECONDS": "0.000001"})
    await program.start()
    assert (await program.ask(""))[0] == 503
