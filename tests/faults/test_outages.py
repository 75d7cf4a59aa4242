"""Kafka and PostgreSQL die and come back under load: nothing is lost, nothing is sent twice, and no process of ours needs a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from unittest.mock import patch

import aiohttp
import pytest

from deploy.local.kafka import Kafka
from deploy.local.postgres import Postgres
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
        with _kept_away(server):
            await server.kill()
            await asyncio.sleep(AWAY_SECONDS)
            await _until_all_say(stack, 503)
        await _until_accepted(load, load.accepted + MORE_MESSAGES)
        await _until_all_say(stack, 200)
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


async def _until_all_say(stack: Stack, status: int) -> None:
    """Every service of ours knows, also one that has nothing to do, whether it can work."""
    left = {each.spec.name: each.spec.ready_url for each in stack.processes if "carrier" not in each.spec.name}
    until = asyncio.get_running_loop().time() + BACK_SECONDS
    async with aiohttp.ClientSession() as session:
        while left:
            assert asyncio.get_running_loop().time() < until, f"{sorted(left)} do not say {status}"
            for name, url in list(left.items()):
                async with session.get(url) as answer:
                    if answer.status == status:
                        del left[name]
            await asyncio.sleep(0.2)


@contextmanager
def _kept_away(server: Kafka | Postgres) -> Generator[None]:
    """The stack, which starts a dead server again by itself, has to wait with it."""
    back, start = asyncio.Event(), server.start

    async def once_it_may() -> None:
        await back.wait()
        await start()

    with patch.object(server, "start", once_it_may):
        try:
            yield
        finally:
            back.set()
