"""A primary and its standby: the pool goes where writes are taken, and nowhere else."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from deploy.local.postgres import Postgres, data_location
from libs.service_kit.transient import is_transient
from libs.storage.database import Pool, open_database
from tests.libs.storage.conftest import SCHEMA

WRITE = "INSERT INTO seen_elsewhere VALUES (1)"


@pytest.fixture
async def primary(server_directory: Path) -> AsyncIterator[Postgres]:
    async with Postgres(server_directory / "primary") as server:
        yield server


@pytest.fixture
async def standby(primary: Postgres) -> AsyncIterator[Postgres]:
    """A copy of the primary that waits to be promoted."""
    await primary.stop()
    copy = primary.directory.with_name("standby")
    subprocess.run(("cp", "-a", primary.directory, copy), check=True)
    (data_location(copy) / "standby.signal").touch()
    await primary.start()
    async with Postgres(copy) as server:
        yield server


async def ask(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()


async def refusal(pool: Pool, awaited: type[Exception]) -> None:
    """Wait until the pool refuses even to ask, and with what; only what is transient may come before."""
    async with asyncio.timeout(20):
        while True:
            try:
                await pool.fetchval("SELECT 1")
            except awaited as error:
                assert is_transient(error)
                return
            except Exception as error:
                if not is_transient(error):
                    raise
            await asyncio.sleep(0.01)  # a pool replaces a connection that was asked very often


async def test_a_pool_passes_a_standby_by_and_follows_when_it_is_promoted(
    primary: Postgres, standby: Postgres, migrations: Path
) -> None:
    alone = standby.dsn()
    with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
        await open_database(alone, SCHEMA, migrations, 1)
    both = alone.replace(urlsplit(alone).netloc, f"{urlsplit(alone).netloc},127.0.0.1:{primary.port}")
    pool = await open_database(both, SCHEMA, migrations, 2)
    await pool.execute(WRITE)
    await primary.stop()
    await refusal(pool, ConnectionRefusedError)
    await ask(alone, "SELECT pg_promote()")
    assert await pool.fetchval("SHOW transaction_read_only") == "off"
    await pool.close()


async def test_a_connection_whose_server_no_longer_takes_writes_is_given_up(
    primary: Postgres, migrations: Path
) -> None:
    pool = await open_database(primary.dsn(), SCHEMA, migrations, 2)
    await ask(primary.dsn(), "ALTER SYSTEM SET default_transaction_read_only = on")
    await ask(primary.dsn(), "SELECT pg_reload_conf()")
    await refusal(pool, asyncpg.TargetServerAttributeNotMatched)
    await ask(primary.dsn(), "ALTER SYSTEM RESET default_transaction_read_only")
    await ask(primary.dsn(), "SELECT pg_reload_conf()")
    async with asyncio.timeout(20):
        while True:
            try:
                await pool.execute(WRITE)
                break
            except asyncpg.TargetServerAttributeNotMatched:
                await asyncio.sleep(0.01)
    await pool.close()
