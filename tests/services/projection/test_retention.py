"""Old messages dropped beside a projection that writes."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from libs.storage import partitions, retention
from libs.storage.database import Pool
from libs.storage.partitions import Connection, make_ahead
from libs.storage.retention import drop_old
from services.projection import store
from services.projection.store import PARTITIONED
from tests.services.projection.conftest import fold_in, waiting
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
