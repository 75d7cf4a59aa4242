"""A schema is brought up to date once, whoever does it, and never by files that have changed."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from libs.storage.database import MigrationError, open_database
from tests.libs.storage.conftest import SCHEMA


async def test_services_that_start_at_once_apply_each_migration_once_and_in_order(dsn: str, migrations: Path) -> None:
    (migrations / "0002_more.sql").write_text("ALTER TABLE seen_elsewhere ADD m int")
    pools = await asyncio.gather(*(open_database(dsn, SCHEMA, migrations, 1) for _ in range(5)))
    applied = await pools[0].fetch("SELECT name FROM migrations ORDER BY applied_at")
    assert [row["name"] for row in applied] == ["0001_tables.sql", "0002_more.sql"]
    for pool in pools:
        await pool.close()


async def test_a_migration_that_has_changed_since_it_was_applied_is_refused_by_name(dsn: str, migrations: Path) -> None:
    await (await open_database(dsn, SCHEMA, migrations, 1)).close()
    file = migrations / "0001_tables.sql"
    file.write_text(file.read_text() + "CREATE TABLE further (n int);")
    with pytest.raises(MigrationError, match=f"{SCHEMA}: 0001_tables.sql has changed"):
        await open_database(dsn, SCHEMA, migrations, 1)


async def test_a_migration_that_fails_leaves_nothing_and_is_applied_once_it_is_mended(
    dsn: str, migrations: Path
) -> None:
    file = migrations / "0002_more.sql"
    file.write_text("CREATE TABLE further (n int); SELECT 1 / 0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await open_database(dsn, SCHEMA, migrations, 1)
    file.write_text("CREATE TABLE further (n int);")
    pool = await open_database(dsn, SCHEMA, migrations, 1)
    assert await pool.fetchval("SELECT count(*) FROM further") == 0
    await pool.close()
