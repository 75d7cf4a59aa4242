"""What the projection's role must be allowed."""

from urllib.parse import urlsplit

import asyncpg
import pytest

from libs.storage.database import DsnError, open_database
from services.projection.store import MIGRATIONS, PARTITIONED, SCHEMA, require_rights
from tests.conftest import DatabaseFactory


async def test_a_role_that_may_make_no_temporary_tables_is_told_so_before_it_takes_a_record(
    postgres: DatabaseFactory,
) -> None:
    parts = urlsplit(await postgres())
    name = parts.path[1:]
    role = f"{name}_role"
    owner = await asyncpg.connect(parts.geturl())
    await owner.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC; CREATE ROLE {role} LOGIN PASSWORD 'plain'")
    await owner.execute(f"GRANT CONNECT, CREATE ON DATABASE {name} TO {role}")
    dsn = parts._replace(netloc=f"{role}:plain@{parts.hostname}:{parts.port}").geturl()
    pool = await open_database(dsn, SCHEMA, MIGRATIONS, 1, PARTITIONED)
    with pytest.raises(DsnError, match="lacks a right on the database: TEMPORARY"):
        await require_rights(pool)
    await owner.execute(f"GRANT TEMPORARY ON DATABASE {name} TO {role}")
    await require_rights(pool)
    await pool.close()
    await owner.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
    await owner.close()
