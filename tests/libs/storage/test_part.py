"""PostgreSQL as a part of a service's life, whose readiness it decides."""

from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from libs.service_kit import lifecycle
from libs.service_kit.lifecycle import Lifecycle
from libs.service_kit.settings import DatabaseSettings
from libs.storage.part import database_part
from tests.libs.storage.conftest import SCHEMA
from tests.waiting import until


async def test_a_service_is_ready_only_while_postgres_answers(
    dsn: str, migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "WATCH_SECONDS", 0.02)
    settings = DatabaseSettings.model_validate({"ops_port": 0, "internal_token": "x" * 16, "postgres_dsn": dsn})
    life = Lifecycle(settings)
    pool = await database_part(life, settings, SCHEMA, migrations)
    life.health.starting = None
    assert await pool.fetchval("SELECT count(*) FROM seen") == 0
    name = urlsplit(dsn).path.lstrip("/")
    other = await asyncpg.connect(urlsplit(dsn)._replace(path="/postgres").geturl())
    try:
        await other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        await until(lambda: set(life.health.missing()) == {"postgres"}, "the service is not ready")
        await other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await until(lambda: life.health.missing() == {}, "the service is ready again")
    finally:
        await other.close()
        await life.stop_all()
    assert pool.is_closing(), "its connections go with the service"
