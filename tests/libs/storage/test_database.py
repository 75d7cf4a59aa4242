"""What the pools of all services have in common."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from libs.bus.errors import is_transient
from libs.storage import database
from libs.storage.database import DsnError, open_database
from tests.libs.storage.conftest import SCHEMA


async def test_the_locks_of_a_process_that_is_frozen_in_its_transaction_are_given_back(
    dsn: str, migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "IDLE_IN_TRANSACTION_SECONDS", 0.05)
    pool = await open_database(dsn, SCHEMA, migrations, 2)
    await pool.execute("INSERT INTO seen_elsewhere VALUES (1)")
    lock = "SELECT n FROM seen_elsewhere FOR UPDATE"
    frozen = await pool.acquire()
    await frozen.execute("BEGIN")
    await frozen.execute(lock)
    async with asyncio.timeout(20):
        assert await pool.fetchval(lock) == 1
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)) as fault:
        await frozen.execute(lock)
    assert is_transient(fault.value)
    pool.terminate()  # not all that it knows of is open


async def test_a_dsn_that_can_not_be_followed_is_refused_with_its_reason_and_without_its_password(
    tmp_path: Path,
) -> None:
    with pytest.raises(DsnError, match="`sslmode` parameter must be one of: disable") as refused:
        await open_database("postgresql://me:hunter2@127.0.0.1:1/postrider?sslmode=typo", SCHEMA, tmp_path, 1)
    assert "hunter2" not in str(refused.value)


async def test_a_dsn_that_says_itself_which_server_is_meant_is_followed(dsn: str, migrations: Path) -> None:
    with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
        await open_database(f"{dsn}?target_session_attrs=standby", SCHEMA, migrations, 1)
