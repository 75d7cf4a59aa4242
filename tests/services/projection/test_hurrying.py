"""That who waits at one replica hurries the others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from libs.storage.database import Pool, open_database
from services.projection.hurrying import Hurry
from services.projection.store import MIGRATIONS, SCHEMA
from tests.conftest import DatabaseFactory
from tests.silence import relay_to
from tests.waiting import until


class Replica:
    def __init__(self, pool: Pool) -> None:
        self.hurried = 0
        self.hurry = Hurry(pool, self._here)

    def _here(self) -> None:
        self.hurried += 1


@asynccontextmanager
async def replicas(pool: Pool, number: int) -> AsyncIterator[list[Replica]]:
    found = [Replica(pool) for _ in range(number)]
    tasks = [asyncio.create_task(replica.hurry.run()) for replica in found]
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        for done in (await asyncio.wait(tasks))[0]:
            if not done.cancelled():
                done.result()


async def test_who_waits_at_one_replica_hurries_all_and_itself_once(pool: Pool) -> None:
    async with replicas(pool, 2) as (one, other):
        await until(lambda: one.hurry.carrying and other.hurry.carrying)
        one.hurry()
        await until(lambda: other.hurried == 1)
    # What a connection has heard is told before it is given back.
    assert (one.hurried, other.hurried) == (1, 1)


async def test_a_lost_connection_is_made_anew(pool: Pool, recwarn: pytest.WarningsRecorder) -> None:
    async with replicas(pool, 2) as (one, other):
        await until(lambda: one.hurry.carrying and other.hurry.carrying)
        await pool.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%' AND pid <> pg_backend_pid()"
        )
        await until(lambda: one.hurry() or other.hurried)
    assert not [str(each.message) for each in recwarn], "of the connection that was lost"


async def test_an_end_does_not_wait_for_a_server_that_has_gone_without_a_word(postgres: DatabaseFactory) -> None:
    relay = await relay_to(await postgres())
    pool = await open_database(relay.dsn, SCHEMA, MIGRATIONS, 1)
    async with asyncio.timeout(25):  # a statement may take 30
        async with replicas(pool, 1) as (one,):
            await until(lambda: one.hurry.carrying)
            relay.fall_silent()
        assert await pool.fetchval("SELECT 1") == 1
    pool.terminate()
    relay.listening.close()
