"""Kafka and PostgreSQL die and come back under load: nothing is lost, nothing is sent twice, and no process of ours needs a restart."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.local.ports import HOST
from deploy.local.stack import Stack
from tests.faults.auditor import audit, explain
from tests.faults.load import Load
from tests.faults.records import Reader

AWAY_SECONDS = 12.0
"""Longer than a dispatcher's lease and its last attempts to store what it was answered, and than a group's session."""
BACK_SECONDS = 60.0
MORE_MESSAGES = 300
"""So many are accepted before the server dies, and once more when it is back."""
REST_SECONDS = 90.0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["kafka", "postgres"])
async def test_a_server_may_die_and_come_back(name: str, stack: Stack, records: Reader) -> None:
    server = stack.broker if name == "kafka" else stack.database
    assert server
    deaths = {process.spec.name: len(process.deaths) for process in stack.processes}
    after = await records.ledger_end()
    async with Load(stack.url, stack.api_key, name, rate=200, clients=50, seed=1) as load:
        await _until_accepted(load, MORE_MESSAGES)
        await server.kill()
        with _nobody_at(server.port):
            await asyncio.sleep(AWAY_SECONDS)
        await _until_accepted(load, load.accepted + MORE_MESSAGES)
    print(f"{name}: {len(load.promises)} messages; repeated after {dict(load.again)}")
    await records.until_at_rest(load.name, load.promises, within=REST_SECONDS)
    run = await records.of_run(load.name, load.promises, after, {})
    complaints = audit(run)
    assert not complaints, explain(run, complaints) + await records.histories(complaints)
    assert deaths == {process.spec.name: len(process.deaths) for process in stack.processes}, (
        "a process of ours died too"
    )


async def _until_accepted(load: Load, messages: int) -> None:
    async with asyncio.timeout(BACK_SECONDS):
        while load.accepted < messages:
            await asyncio.sleep(0.05)


@contextmanager
def _nobody_at(port: int) -> Iterator[None]:
    """Connections are refused, and the stack, which starts a dead server again by itself, finds the port taken."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((HOST, port))
        yield
