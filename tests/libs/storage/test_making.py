"""Partitions made ahead on a real PostgreSQL, with readers and writers beside, and rows that came before their partition."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from libs.contracts.message_ids import first_id
from libs.storage import partitions, retention
from libs.storage.database import Pool, open_database
from libs.storage.partitions import Partitioned, changing_partitions, make_ahead, partitions_of, span
from libs.storage.retention import keep_partitions
from tests.libs.storage.conftest import BY_TIME, BY_UUID, NOW, SCHEMA, TABLES, id_of
from tests.waiting import until

FUTURE = NOW + timedelta(days=14)
ALL = 6
"""One before, this one, three ahead, and the default one."""
WAITS = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"


async def make(pool: Pool, tables: tuple[Partitioned, ...] = TABLES) -> None:
    async with pool.acquire() as connection, asyncio.timeout(20):
        await make_ahead(connection, tables, NOW)


async def made(pool: Pool, table: Partitioned) -> list[str]:
    async with pool.acquire() as connection:
        return list(await partitions_of(connection, table))


async def test_where_nothing_is_missing_no_reader_is_waited_for(pool: Pool) -> None:
    await make(pool)
    async with pool.acquire() as reader, reader.transaction():
        await reader.fetch("SELECT * FROM seen, sent")
        await make(pool)


async def test_services_that_make_partitions_at_once_get_in_nobodys_way(pool: Pool) -> None:
    with capture_logs() as logs:
        await asyncio.gather(*(make(pool) for _ in range(3)))
    assert len(await made(pool, BY_TIME)) == len(await made(pool, BY_UUID)) == ALL
    assert logs == []


async def test_who_comes_while_a_partition_is_made_waits_and_makes_the_rest(pool: Pool) -> None:
    start, end = span(BY_TIME, NOW - timedelta(days=BY_TIME.days))
    with capture_logs() as logs:
        async with pool.acquire() as other, changing_partitions(other):
            making = asyncio.create_task(make(pool))
            await until(lambda: making.done() or pool.fetchval(WAITS), "the one who came later to wait")
            await other.execute(
                f"CREATE TABLE seen_{start:%Y%m%d} PARTITION OF seen FOR VALUES FROM ('{start}') TO ('{end}')"
            )
        await making
    assert len(await made(pool, BY_TIME)) == len(await made(pool, BY_UUID)) == ALL
    assert logs == []


async def test_a_table_that_is_read_for_long_holds_up_no_other_and_its_own_writers_not_for_long(pool: Pool) -> None:
    async with pool.acquire() as reader, reader.transaction():
        await reader.fetch("SELECT * FROM seen")
        making = asyncio.create_task(make(pool))
        async with asyncio.timeout(20):
            for n in range(20):
                await pool.execute("INSERT INTO seen VALUES ($1, $2)", NOW, n)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await making
    assert len(await made(pool, BY_TIME)) == 1
    assert len(await made(pool, BY_UUID)) == ALL
    await make(pool)
    assert len(await made(pool, BY_TIME)) == ALL
    assert await pool.fetchval(f"SELECT count(*) FROM seen_{span(BY_TIME, NOW)[0]:%Y%m%d}") == 20


async def test_a_service_starts_beside_a_long_read_and_makes_its_partitions_later(
    dsn: str, migrations: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(retention, "TRIES", 1000)
    now = datetime.now(UTC)
    async with pool.acquire() as reader, reader.transaction():
        await reader.fetch("SELECT * FROM seen")
        async with asyncio.timeout(20):
            service = await open_database(dsn, SCHEMA, migrations, 2, TABLES)
        keeping = asyncio.create_task(keep_partitions(service, TABLES, 35))
        await service.execute("INSERT INTO seen VALUES ($1, 0)", now)
        assert await reader.fetchval("SELECT count(*) FROM seen_default") == 1
    async with asyncio.timeout(20):
        while len(await made(pool, BY_TIME)) < ALL:
            await asyncio.sleep(0.02)
    keeping.cancel()
    await service.close()
    assert await pool.fetchval("SELECT at FROM seen") == now
    assert await pool.fetchval("SELECT count(*) FROM seen_default") == 0


async def test_rows_of_a_clock_that_was_ahead_move_into_their_partition_when_it_is_made(pool: Pool) -> None:
    further = FUTURE + timedelta(days=365)
    at = [span(BY_TIME, FUTURE)[0], FUTURE, span(BY_TIME, FUTURE)[1] - timedelta(milliseconds=1), further]
    await pool.executemany("INSERT INTO seen VALUES ($1, 0)", [(each,) for each in at])
    await pool.executemany("INSERT INTO sent VALUES ($1)", [(id_of(each),) for each in at])
    await make(pool)
    for table, key in ((BY_TIME, "at"), (BY_UUID, "id")):
        expected = at if table is BY_TIME else [id_of(each) for each in at]
        name = f"{table.table}_{span(table, FUTURE)[0]:%Y%m%d}"
        assert len(await made(pool, table)) == ALL
        assert [row[0] for row in await pool.fetch(f"SELECT {key} FROM {name} ORDER BY 1")] == expected[:3]
        assert await pool.fetchval(f"SELECT {key} FROM {table.table}_default") == expected[3]
        assert [row[0] for row in await pool.fetch(f"SELECT {key} FROM {table.table} ORDER BY 1")] == expected


async def shape(pool: Pool, name: str) -> list[Any]:
    """All that sets a partition apart from others, its name and its bounds aside."""
    columns = await pool.fetch(
        "SELECT attname, atttypid, attcollation, attnotnull, attstorage, attcompression, pg_get_expr(adbin, adrelid)"
        " FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
        " WHERE attrelid = $1::regclass AND attnum > 0 ORDER BY attnum",
        name,
    )
    indexes = await pool.fetch(
        "SELECT pg_get_indexdef(i.indexrelid) AS words, indisvalid, inhparent::regclass::text FROM pg_index i"
        " JOIN pg_inherits h ON h.inhrelid = i.indexrelid WHERE indrelid = $1::regclass ORDER BY words",
        name,
    )
    constraints = await pool.fetch(
        "SELECT conname, contype, pg_get_constraintdef(oid), conislocal, coninhcount FROM pg_constraint"
        " WHERE conrelid = $1::regclass ORDER BY conname",
        name,
    )
    options = await pool.fetchval("SELECT reloptions FROM pg_class WHERE oid = $1::regclass", name)
    return [
        *(tuple(row) for row in columns),
        *(tuple(str(value).replace(name, "it") for value in row) for row in (*indexes, *constraints)),
        options,
    ]


async def test_a_partition_is_as_postgres_makes_it(pool: Pool) -> None:
    told = Partitioned("told", by_uuid=True, fillfactor=40)
    await pool.execute(
        'CREATE TABLE told (tenant text COLLATE "C" NOT NULL, id uuid, n int NOT NULL DEFAULT 1 CHECK (n > 0), text text,'
        " PRIMARY KEY (tenant, id)) PARTITION BY RANGE (id);"
        " CREATE TABLE told_default PARTITION OF told DEFAULT;"
        " CREATE INDEX told_text ON told (text, id) WHERE text IS NOT NULL"
    )
    await pool.execute("INSERT INTO told VALUES ('bank', $1, 2, 'x')", id_of(FUTURE))
    await make(pool, (told,))
    later, end = span(told, NOW + timedelta(days=70))
    await pool.execute(
        f"CREATE TABLE told_by_postgres PARTITION OF told FOR VALUES FROM ('{first_id(later)}') TO ('{first_id(end)}')"
        " WITH (fillfactor = 40)"
    )
    assert await shape(pool, f"told_{span(told, FUTURE)[0]:%Y%m%d}") == await shape(pool, "told_by_postgres")


_SLOW = """
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN OLD; END $$;
    CREATE TRIGGER slow BEFORE DELETE ON seen_default FOR EACH ROW EXECUTE FUNCTION slow()"""


@pytest.mark.parametrize("why", ["its name is taken", "its rows would take too long to move"])
async def test_what_can_not_be_made_keeps_no_other_from_being_made_and_its_rows_are_stored(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(partitions, "STATEMENT_MILLISECONDS", 1_000)
    start, _ = span(BY_TIME, NOW)
    if why == "its name is taken":
        await pool.execute(f"CREATE TABLE seen_{start:%Y%m%d} (in_the_way int)")
    else:
        await pool.execute(_SLOW)
        await pool.execute("INSERT INTO seen VALUES ($1, 1)", NOW)
    await make(pool)
    assert len(await made(pool, BY_TIME)) == ALL - 1
    assert len(await made(pool, BY_UUID)) == ALL
    await pool.execute("INSERT INTO seen VALUES ($1, 0)", NOW)
    assert await pool.fetchval("SELECT at FROM seen_default WHERE n = 0") == NOW
