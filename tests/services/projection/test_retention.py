"""Old messages dropped beside a projection that writes."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from libs.service_kit.lifecycle import Lifecycle
from libs.storage import partitions, retention
from libs.storage.database import Pool, open_database
from libs.storage.partitions import Connection, make_ahead
from libs.storage.retention import drop_old
from services.projection import main, store
from services.projection.store import MIGRATIONS, PARTITIONED, SCHEMA
from tests.conftest import DatabaseFactory
from tests.services.projection.conftest import fold_in, waiting
from tests.services.projection.program import CONFIGURED, settings
from tests.services.projection.stories import START, Story
from tests.waiting import until


async def test_retention_and_a_batch_that_is_half_written_never_wait_for_each_other(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "TRIES", 1)
    monkeypatch.setattr(partitions, "LOCK_MILLISECONDS", 60_000)
    monkeypatch.setattr(partitions, "STATEMENT_MILLISECONDS", 60_000)
    long_ago = START - timedelta(days=60)
    async with pool.acquire() as connection:
        await make_ahead(connection, PARTITIONED, long_ago)
    await fold_in(pool, Story(1, at=long_ago).delivered())
    dropping: list[asyncio.Task[None]] = []

    async def half_written(connection: Connection, table: str, rows: Any) -> None:
        if table == "events":
            dropping.append(asyncio.create_task(drop_old(pool, PARTITIONED, START - timedelta(days=30))))
            await until(waiting(pool, 1), "a lock that retention waits for")
        await copy(connection, table, rows)

    copy = store.copy
    monkeypatch.setattr(store, "copy", half_written)
    young = Story(2)
    await fold_in(pool, young.delivered())
    await asyncio.gather(*dropping)
    for table in PARTITIONED:
        ids = await pool.fetchval(f"SELECT array_agg(DISTINCT message_id) FROM {table.table}")
        assert ids == [young.id]


async def test_a_projection_that_runs_lets_go_of_what_is_older_than_it_is_to_keep(
    postgres: DatabaseFactory, tmp_path: Path
) -> None:
    dsn, now = await postgres(), datetime.now(UTC)
    old, young = Story(1, at=now - timedelta(days=381)), Story(2, at=now - timedelta(days=379))
    pool = await open_database(dsn, SCHEMA, MIGRATIONS, 2, PARTITIONED)
    await fold_in(pool, [*old.delivered(), *young.delivered()])
    told = settings(dsn, "127.0.0.1:1", tmp_path, projection_keep_days=380)  # Kafka is away, which holds nothing up

    async def left() -> bool:
        of_tables = [await pool.fetch(f"SELECT DISTINCT message_id FROM {each.table}") for each in PARTITIONED]
        return all([row["message_id"] for row in rows] == [young.id] for rows in of_tables)

    life = Lifecycle(told)
    starting = asyncio.create_task(main.start(life, told, CONFIGURED))
    await until(left, "the young one alone")
    starting.cancel()
    await life.stop_all()
    await pool.close()
