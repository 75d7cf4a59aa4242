"""What the projection's role must be allowed."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from libs.service_kit.lifecycle import Lifecycle
from libs.storage.database import DsnError, open_database
from services.projection import main
from services.projection.store import MIGRATIONS, PARTITIONED, SCHEMA, require_rights
from tests.conftest import DatabaseFactory
from tests.services.projection.program import CONFIGURED, settings


async def test_a_role_that_may_make_no_temporary_tables_is_told_so_before_it_takes_a_record(
    postgres: DatabaseFactory, tmp_path: Path
) -> None:
    parts = urlsplit(await postgres())
    name = parts.path[1:]
    role = f"{name}_role"
    owner = await asyncpg.connect(parts.geturl())
    await owner.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC; CREATE ROLE {role} LOGIN PASSWORD 'plain'")
    await owner.execute(f"GRANT CONNECT, CREATE ON DATABASE {name} TO {role}")
    dsn = parts._replace(netloc=f"{role}:plain@{parts.hostname}:{parts.port}").geturl()
    told = settings(dsn, "127.0.0.1:1", tmp_path)
    life = Lifecycle(told)
    with pytest.raises(DsnError, match="lacks a right on the database: TEMPORARY"):
        async with asyncio.timeout(30):  # else it would wait for Kafka
            await main.start(life, told, CONFIGURED)
    await life.stop_all()
    pool = await open_database(dsn, SCHEMA, MIGRATIONS, 1, PARTITIONED)
    await owner.execute(f"GRANT TEMPORARY ON DATABASE {name} TO {role}")
    await require_rights(pool)
    await pool.close()
    await owner.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
    await owner.close()
