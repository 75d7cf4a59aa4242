"""Partitions dropped by age on a real PostgreSQL, with writers beside."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from libs.storage import retention
from libs.storage.database import Pool
from libs.storage.partitions import make_ahead, span
from libs.storage.retention import delete_old, drop_old, keep_partitions
from tests.libs.storage.conftest import BY_TIME, NOW, TABLES, id_of
from tests.waiting import WITHIN_SECONDS, until

KEEP = timedelta(days=35)


async def fill(pool: Pool, days: range) -> None:
    """Partitions for all of these days ago, and a row of each day in both tables."""
    moments = [NOW - timedelta(days=day) for day in days]
    async with pool.acquire() as connection:
        for moment in moments[::7]:
            await make_ahead(connection, TABLES, moment)
        await connection.executemany("INSERT INTO seen VALUES ($1, 0)", [(m,) for m in moments])
        await connection.executemany("INSERT INTO sent VALUES ($1)", [(id_of(m),) for m in moments])


async def kept(pool: Pool) -> list[datetime]:
    """The rows of `seen`; those of `sent` are of the same times."""
    seen = [row[0] for row in await pool.fetch("SELECT at FROM seen ORDER BY at")]
    assert [row[0] for row in await pool.fetch("SELECT id FROM sent ORDER BY id")] == [id_of(at) for at in seen]
    return seen


async def test_whole_partitions_older_than_the_age_go_and_nothing_younger(pool: Pool) -> None:
    await fill(pool, range(80))
    await drop_old(pool, TABLES, NOW - KEEP)
    first, _ = span(BY_TIME, NOW - KEEP)
    rows = await kept(pool)
    assert rows[0] == min(at for at in (NOW - timedelta(days=d) for d in range(80)) if at >= first)
    assert rows[-1] == NOW
    assert len(rows) == (NOW - rows[0]).days + 1
    before = await pool.fetchval("SELECT count(*) FROM pg_class")
    await drop_old(pool, TABLES, NOW - KEEP)
    assert await pool.fetchval("SELECT count(*) FROM pg_class") == before
    assert await pool.fetchval("SELECT to_regclass('seen_elsewhere') IS NOT NULL")


async def test_old_rows_of_the_default_partition_go_by_their_own_age(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 10)
    ages = [timedelta(days=d) for d in range(20, 60)]
    await pool.executemany("INSERT INTO seen VALUES ($1, 0)", [(NOW - age,) for age in ages])
    await pool.executemany("INSERT INTO sent VALUES ($1)", [(id_of(NOW - age),) for age in ages])
    await drop_old(pool, TABLES, NOW - KEEP)
    assert await kept(pool) == sorted(NOW - age for age in ages if age <= KEEP)


async def test_a_busy_table_is_tried_again_and_holds_no_writer_up_for_long(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "RETRY_SECONDS", 0.05)
    await fill(pool, range(0, 80, 7))
    async with pool.acquire() as reader:
        transaction = reader.transaction()
        await transaction.start()
        await reader.fetch("SELECT * FROM seen")
        dropping = asyncio.create_task(drop_old(pool, (BY_TIME,), NOW - KEEP))
        async with asyncio.timeout(20):
            for n in range(20):  # a writer meets the waiting lock and gets through all the same
                await pool.execute("INSERT INTO seen VALUES ($1, $2)", NOW, n + 1)
        assert not dropping.done()
        assert await reader.fetchval("SELECT count(*) FROM seen") >= 12
        await transaction.rollback()
    await dropping
    assert await pool.fetchval("SELECT min(at) FROM seen") >= span(BY_TIME, NOW - KEEP)[0]


@pytest.mark.parametrize("busy", ["seen", "sent"])
async def test_it_gives_up_on_a_table_that_stays_busy_and_leaves_all_of_them_whole(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, busy: str
) -> None:
    monkeypatch.setattr(retention, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(retention, "TRIES", 2)
    await fill(pool, range(0, 80, 7))
    rows = await kept(pool)
    async with pool.acquire() as reader, reader.transaction():
        await reader.fetch(f"SELECT * FROM {busy}")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await drop_old(pool, TABLES, NOW - KEEP)
    assert await kept(pool) == rows


async def test_what_a_crash_left_detached_is_dropped_the_next_time(pool: Pool) -> None:
    await fill(pool, range(0, 80, 7))
    (name, *_) = [name for name, end in await retention._ended(pool, BY_TIME) if end <= NOW - KEEP]
    await pool.execute(f"ALTER TABLE seen DETACH PARTITION {name}")
    await drop_old(pool, TABLES, NOW - KEEP)
    assert await pool.fetchval("SELECT to_regclass($1) IS NULL", name)


async def test_two_replicas_at_once_do_no_harm(pool: Pool) -> None:
    await fill(pool, range(80))
    await asyncio.gather(*(drop_old(pool, TABLES, NOW - KEEP) for _ in range(3)))
    assert (await kept(pool))[0] >= span(BY_TIME, NOW - KEEP)[0]


async def test_deletions_go_on_until_nothing_is_left(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 7)
    await pool.execute("INSERT INTO seen_elsewhere SELECT generate_series(1, 100)")
    await delete_old(pool, "seen_elsewhere", "n", 61)
    assert await pool.fetchval("SELECT count(*) FROM seen_elsewhere") == 40


async def test_a_row_that_is_locked_is_not_waited_for_and_goes_the_next_time(pool: Pool) -> None:
    await pool.execute("INSERT INTO seen_elsewhere SELECT generate_series(1, 10)")
    async with pool.acquire() as other, other.transaction(), asyncio.timeout(WITHIN_SECONDS):
        await other.execute("SELECT FROM seen_elsewhere WHERE n = 5 FOR UPDATE")
        await delete_old(pool, "seen_elsewhere", "n", 11)
        assert await pool.fetch("SELECT n FROM seen_elsewhere") == [(5,)]
    await delete_old(pool, "seen_elsewhere", "n", 11)
    assert await pool.fetchval("SELECT count(*) FROM seen_elsewhere") == 0


async def test_a_service_keeps_what_is_younger_than_so_many_days(pool: Pool) -> None:
    ages = [timedelta(days=days) for days in (30, 34, 36, 50)]
    rows = [datetime.now(UTC) - age for age in ages]
    await pool.executemany("INSERT INTO seen VALUES ($1, 0)", [(at,) for at in rows])
    keeping = asyncio.create_task(keep_partitions(pool, (BY_TIME,), 35))

    async def gone() -> bool:
        return await pool.fetchval("SELECT count(*) FROM seen") < len(rows)

    await until(gone)
    keeping.cancel()
    assert [row["at"] for row in await pool.fetch("SELECT at FROM seen ORDER BY at DESC")] == rows[:2]


async def test_what_is_older_than_so_many_days_goes_at_once_and_then_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "CHECK_SECONDS", 0)
    asked: list[timedelta] = []

    async def forget(before: datetime) -> None:
        asked.append(datetime.now(UTC) - before)
        if len(asked) == 3:
            keeping.cancel()

    keeping = asyncio.ensure_future(retention.keep_days("rows", 35, forget))
    await asyncio.wait([keeping], timeout=WITHIN_SECONDS)
    assert [each // timedelta(days=1) for each in asked] == [35, 35, 35]
