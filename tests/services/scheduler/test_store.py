import json
from datetime import datetime, timedelta

from libs.storage.database import Pool
from services.scheduler import store
from services.scheduler.handlers import arrival
from services.scheduler.store import Mark
from tests.services.scheduler.builders import NOW, deferred, new_message_id

LEASE = timedelta(seconds=10)
_FILL = """
    WITH filled AS (
        INSERT INTO entries (message_id, cycle, leg, due_at, tenant, kind, person)
        SELECT gen_random_uuid(), 1, 2, $1::timestamptz + n * interval '1 second', 'acme', 'client', '17'
        FROM generate_series(1, $2::int) AS n RETURNING message_id)
    INSERT INTO events SELECT message_id, 1, 2, 'x' FROM filled
"""


async def _buffers(pool: Pool, query: str, *arguments: object) -> int:
    """Pages that a statement touches."""
    plan = json.loads(await pool.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {query}", *arguments))
    top = plan[0]["Plan"]
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]


async def _claim_of_100(pool: Pool) -> int:
    """Pages touched to take 100 that are due and to ask for the next, for each; and gives them back."""
    await store.add(pool, [arrival(deferred(NOW)) for _ in range(100)])
    touched = await _buffers(pool, store._CLAIM, NOW, 100, NOW + LEASE)
    touched += await _buffers(pool, store._NEXT)
    places = [
        store.Place(*row)
        for row in await pool.fetch("SELECT message_id, cycle, leg FROM entries WHERE due_at <= $1", NOW)
    ]
    settling = [list(column) for column in zip(*sorted(places), strict=True)]
    touched += await _buffers(pool, store._SETTLE, *settling, NOW)
    await pool.execute("DELETE FROM entries WHERE settled_at IS NOT NULL")
    return touched


async def test_a_hundred_thousand_that_wait_cost_what_is_due_no_more_than_a_thousand(pool: Pool) -> None:
    await pool.execute(_FILL, NOW, 1_000)
    few = await _claim_of_100(pool)
    await pool.execute(_FILL, NOW, 99_000)
    many = await _claim_of_100(pool)
    # A level or two more in each index, and no page for each that waits: those are thousands.
    assert many < few * 2


async def test_what_is_done_is_forgotten_after_its_time_and_what_waits_never(pool: Pool) -> None:
    old, new, waiting = (arrival(deferred(NOW)) for _ in range(3))
    twice = arrival(deferred(NOW, old.message_id, leg=3))
    await store.add(pool, [old, twice, new, waiting])
    await store.settle(pool, [old.place, twice.place], NOW - timedelta(days=31))
    await store.settle(pool, [new.place], NOW - timedelta(days=29))
    marks = [Mark(new_message_id(), 1) for _ in range(2)]
    await store.mark(pool, marks[:1], NOW - timedelta(days=31))
    await store.mark(pool, marks[1:], NOW - timedelta(days=29))
    assert await store.forget(pool, NOW - timedelta(days=30), batch=1) == 3
    assert {row[0] for row in await pool.fetch("SELECT message_id FROM entries")} == {
        new.message_id,
        waiting.message_id,
    }
    assert [row[0] for row in await pool.fetch("SELECT message_id FROM marks")] == [marks[1].message_id]


async def test_the_next_due_is_the_first_that_waits(pool: Pool) -> None:
    async def waits(due_at: datetime) -> None:
        await store.add(pool, [arrival(deferred(due_at))])

    assert await store.next_due(pool) is None
    await waits(NOW + timedelta(days=2))
    await waits(NOW + timedelta(days=1))
    assert await store.next_due(pool) == NOW + timedelta(days=1)


async def test_to_take_a_row_leaves_it_where_its_indexes_point_to(pool: Pool) -> None:
    await store.add(pool, [arrival(deferred(NOW, text="x" * 500)) for _ in range(10)])
    hot = "SELECT pg_stat_get_xact_tuples_hot_updated('entries'::regclass)"
    async with pool.acquire() as connection, connection.transaction():
        before = await connection.fetchval(hot)
        await connection.execute(store._CLAIM, NOW, 10, NOW + LEASE)
        assert await connection.fetchval(hot) == before + 10
