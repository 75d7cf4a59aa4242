"""Entries that were stored by an earlier release."""

import asyncio
import shutil
from pathlib import Path

from libs.contracts.events import Priority
from libs.storage.database import Pool, open_database
from services.scheduler import store
from services.scheduler.handlers import arrival
from services.scheduler.main import MIGRATIONS
from services.scheduler.store import Arrival
from tests.conftest import DatabaseFactory
from tests.services.scheduler.builders import NOW, deferred
from tests.services.scheduler.test_store import LEASE
from tests.waiting import WITHIN_SECONDS

FOOLING = '"priority":"high" \\"priority\\":\\"high\\" \\'


async def test_what_waits_with_high_priority_since_before_it_was_a_column_leaves_first(
    postgres: DatabaseFactory, tmp_path: Path
) -> None:
    for migration in MIGRATIONS.glob("000[1-3]_*.sql"):
        shutil.copy(migration, tmp_path)
    dsn = await postgres()
    high, settled = (arrival(deferred(NOW, priority=Priority.HIGH)) for _ in range(2))
    normal, fooling = arrival(deferred(NOW)), arrival(deferred(NOW, text=FOOLING, person=FOOLING))
    before = await open_database(dsn, "scheduler", tmp_path, 1)
    await store.add(before, [high, settled, normal, fooling])
    await store.settle(before, [settled.deferral.key], NOW)
    await before.execute("UPDATE entries SET priority = DEFAULT")
    await before.close()
    pool = await open_database(dsn, "scheduler", MIGRATIONS, 1)
    assert await _claimed(pool, high_only=True) == [high]
    await store.settle(pool, [high.deferral.key], NOW)
    assert await _claimed(pool) == sorted([normal, fooling], key=lambda a: a.deferral.key)
    await pool.close()


async def test_what_another_replica_has_locked_is_not_waited_for(pool: Pool) -> None:
    locked, other = (arrival(deferred(NOW, priority=Priority.HIGH)) for _ in range(2))
    await store.add(pool, [locked, other])
    await pool.execute("UPDATE entries SET priority = DEFAULT")
    async with pool.acquire() as connection, connection.transaction(), asyncio.timeout(WITHIN_SECONDS):
        await connection.execute("SELECT FROM entries WHERE message_id = $1 FOR UPDATE", locked.deferral.message_id)
        await pool.execute((MIGRATIONS / "0004_priority_of_what_waits.sql").read_text())
    assert await _claimed(pool, high_only=True) == [other]


async def _claimed(pool: Pool, *, high_only: bool = False) -> list[Arrival]:
    return await store.claim(pool, 10, NOW, LEASE, high_only=high_only)
