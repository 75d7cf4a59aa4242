import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from libs.contracts.events import Priority
from libs.contracts.message_ids import first_id
from libs.storage.database import Pool
from libs.storage.partitions import Connection
from services.scheduler import store
from services.scheduler.handlers import arrival
from services.scheduler.main import MIGRATIONS
from services.scheduler.store import Arrival, Mark, Outcome
from tests.services.opposite_orders import in_opposite_orders
from tests.services.scheduler.builders import NOW, deferred, new_message_id
from tests.waiting import WITHIN_SECONDS

LEASE = timedelta(seconds=10)
_WAITS = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
_FILL = """
    WITH filled AS (
        INSERT INTO entries (message_id, cycle, leg, due_at, tenant, kind, person)
        SELECT gen_random_uuid(), 1, 2, $1::timestamptz + n * interval '1 second', 'acme', 'client', '17'
        FROM generate_series(1, $2::int) AS n RETURNING message_id)
    INSERT INTO events SELECT message_id, 1, 2, 'x' FROM filled
"""


_TOUCHED = """
    SELECT sum(pg_stat_get_xact_blocks_fetched(c)) FROM unnest(ARRAY[
        'entries', 'entries_pkey', 'entries_due', 'entries_due_high', 'events', 'events_pkey', 'marks', 'marks_pkey']::regclass[]) AS c
"""


class _OneConnection:
    """Stands for a pool. Within one transaction Postgres keeps count of what this session touches."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.execute = connection.execute
        self.fetch = connection.fetch
        self.fetchval = connection.fetchval

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        yield self._connection


async def _pages_for_100(one: Any) -> int:
    """Pages touched to take 100 in, to cancel another one, to return them, and to ask for the next."""
    before = await one.fetchval(_TOUCHED)
    arrivals = [arrival(deferred(NOW)) for _ in range(100)]
    await store.add(one, arrivals)
    other = arrival(deferred(NOW + timedelta(days=1)))
    await store.add(one, [other])
    await store.mark(one, [Mark(other.deferral.message_id, 1)], NOW)
    assert len(await store.cancel_marked(one, [a.deferral.message_id for a in (*arrivals, other)], NOW)) == 1
    claimed = await store.claim(one, 100, NOW, LEASE)
    assert len(claimed) == 100
    await store.settle(one, [a.deferral.key for a in claimed], NOW)
    await store.next_due(one)
    return await one.fetchval(_TOUCHED) - before


async def test_a_hundred_thousand_that_wait_cost_what_is_due_no_more_than_a_thousand(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        one = _OneConnection(connection)
        for _ in range(6):
            await _pages_for_100(one)
        await connection.execute("ANALYZE entries, events, marks")  # the planner has seen that next to nothing waits
        await connection.execute(_FILL, NOW + LEASE, 1_000)
        few = await _pages_for_100(one)
        await connection.execute(_FILL, NOW + LEASE, 99_000)
        many = await _pages_for_100(one)
    # A level or two more in each index, and no page for each that waits: those are thousands.
    assert many < few * 2


@pytest.mark.parametrize("seen", [None, Priority.NORMAL, Priority.HIGH], ids=str)
async def test_a_hundred_thousand_that_are_due_cost_one_of_high_priority_no_more_than_a_thousand(
    pool: Pool, seen: Priority | None
) -> None:
    """Whatever the planner has seen: next to nothing, or many of either priority. It may not know better before it looks again."""
    async with pool.acquire() as connection, connection.transaction():
        one: Any = _OneConnection(connection)
        if seen is not None:
            await connection.execute(_FILL, NOW + LEASE, 10_000)
            await connection.execute("UPDATE entries SET priority = $1", seen)
        await connection.execute("ANALYZE entries, events")
        await connection.execute("DELETE FROM entries")

        async def pages_for_one() -> int:
            before = await connection.fetchval(_TOUCHED)
            urgent = arrival(deferred(NOW, priority=Priority.HIGH))
            await store.add(one, [urgent])
            claimed = await store.claim(one, 100, NOW, LEASE, high_only=True)
            assert [a.deferral.key for a in claimed] == [urgent.deferral.key]
            await store.settle(one, [urgent.deferral.key], NOW)
            return await connection.fetchval(_TOUCHED) - before

        for _ in range(6):
            await pages_for_one()  # from here on its plan stays
        await connection.execute(_FILL, NOW - timedelta(days=3), 1_000)
        few = await pages_for_one()
        await connection.execute(_FILL, NOW - timedelta(days=2), 99_000)
        many = await pages_for_one()
    assert many < few * 2


@pytest.mark.parametrize("analyzed", [False, True])
async def test_claims_walk_the_indexes_of_what_is_due(pool: Pool, analyzed: bool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await connection.execute(_FILL, NOW - timedelta(days=1), 5_000)
        if analyzed:
            await connection.execute("ANALYZE entries, events")
        for claim, index in ((store._CLAIM, "entries_due"), (store._CLAIM_HIGH, "entries_due_high")):
            await connection.execute(f"PREPARE claim AS {claim}")
            lines = await connection.fetch(f"EXPLAIN EXECUTE claim ('{NOW}', 100, '{NOW}')")
            await connection.execute("DEALLOCATE claim")
            plan = "\n".join(line[0] for line in lines)
            assert f"Index Scan using {index} on entries" in plan, plan
            assert "Sort" not in plan and "Seq Scan" not in plan, plan


async def test_what_is_done_is_forgotten_after_its_time_and_what_waits_never(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BATCH_ROWS", 1)
    old, new, waiting = (arrival(deferred(NOW, first_id(NOW - timedelta(days=days)))) for days in (42, 41, 40))
    twice = arrival(deferred(NOW, old.deferral.message_id, leg=3))
    await store.add(pool, [old, twice, new, waiting])
    await store.settle(pool, [old.deferral.key, twice.deferral.key], NOW - timedelta(days=31))
    await store.settle(pool, [new.deferral.key], NOW - timedelta(days=29))
    marks = [Mark(new_message_id(), 1) for _ in range(2)]
    await store.mark(pool, marks[:1], NOW - timedelta(days=31))
    await store.mark(pool, marks[1:], NOW - timedelta(days=29))
    await store.forget(pool, NOW - timedelta(days=30))
    assert {row[0] for row in await pool.fetch("SELECT message_id FROM entries")} == {
        new.deferral.message_id,
        waiting.deferral.message_id,
    }
    assert [row[0] for row in await pool.fetch("SELECT message_id FROM marks")] == [marks[1].message_id]


async def test_forgetting_ends_though_deferrals_go_on_coming(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BATCH_ROWS", 1)

    class Busy:
        execute = pool.execute

        async def fetchrow(self, *asked: Any) -> Any:
            await store.add(pool, [arrival(deferred(NOW))])
            return await pool.fetchrow(*asked)

    async with asyncio.timeout(WITHIN_SECONDS):
        await store.forget(cast(Pool, Busy()), NOW - timedelta(days=30))


async def test_the_next_due_is_the_first_that_waits(pool: Pool) -> None:
    async def waits(due_at: datetime) -> None:
        await store.add(pool, [arrival(deferred(due_at))])

    assert await store.next_due(pool) is None
    await waits(NOW + timedelta(days=2))
    await waits(NOW + timedelta(days=1))
    assert await store.next_due(pool) == NOW + timedelta(days=1)
    await waits(NOW)
    await store.claim(pool, 1, NOW, LEASE)
    assert await store.next_due(pool) == NOW + timedelta(days=1), "what is leaving waits no more"
    cancelled = arrival(deferred(NOW))
    await store.add(pool, [cancelled])
    await store.mark(pool, [Mark(cancelled.deferral.message_id, 1)], NOW)
    await store.cancel_marked(pool, [cancelled.deferral.message_id], NOW)
    assert await store.next_due(pool) == NOW + timedelta(days=1), "nor does what is settled"


@pytest.mark.parametrize("claim", [store._CLAIM, store._CLAIM_HIGH], ids=["any", "high"])
async def test_to_take_a_row_leaves_it_where_its_indexes_point_to(pool: Pool, claim: str) -> None:
    await store.add(pool, [arrival(deferred(NOW, text="x" * 500, priority=Priority.HIGH)) for _ in range(10)])
    hot = "SELECT pg_stat_get_xact_tuples_hot_updated('entries'::regclass)"
    async with pool.acquire() as connection, connection.transaction():
        before = await connection.fetchval(hot)
        await connection.execute(claim, NOW, 10, NOW + LEASE)
        assert await connection.fetchval(hot) == before + 10


class _Interrupted:
    """Stands for a pool and its connection; after the first statement, something else is done."""

    def __init__(self, connection: Connection, other: Callable[[], Awaitable[object]]) -> None:
        self._connection = connection
        self._other = [other]
        self.transaction = connection.transaction

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        yield self

    async def execute(self, *arguments: Any) -> str:
        return await self._then(await self._connection.execute(*arguments))

    async def fetch(self, *arguments: Any) -> list[Any]:
        return await self._then(await self._connection.fetch(*arguments))

    async def _then(self, result: Any) -> Any:
        while self._other:
            await self._other.pop()()
        return result


async def test_a_deferral_that_comes_again_while_it_is_settled_leaves_nothing_behind(pool: Pool) -> None:
    again = arrival(deferred(NOW))
    await store.add(pool, [again])
    async with pool.acquire() as ours, pool.acquire() as others:

        async def settle() -> None:
            await others.execute(store._SETTLE, *zip(*[again.deferral.key], strict=True), NOW, Outcome.RETURNED)

        async with others.transaction():
            adding = asyncio.create_task(store.add(cast(Pool, _Interrupted(ours, settle)), [again]))
            async with asyncio.timeout(WITHIN_SECONDS):
                while not (adding.done() or await pool.fetchval(_WAITS)):
                    await asyncio.sleep(0.01)
        await adding
    assert await pool.fetchval("SELECT outcome FROM entries") == "returned"
    assert await pool.fetchval("SELECT count(*) FROM events") == 0


async def test_one_batch_may_bring_the_same_deferral_twice_and_one_that_is_there(pool: Pool) -> None:
    there, new = arrival(deferred(NOW)), arrival(deferred(NOW))
    await store.add(pool, [there])
    await store.add(pool, [new, there, new])
    assert {row[0] for row in await pool.fetch("SELECT message_id FROM events")} == {
        there.deferral.message_id,
        new.deferral.message_id,
    }


async def test_events_that_were_left_behind_are_deleted_at_the_next_start(pool: Pool) -> None:
    waiting, settled, forgotten = (arrival(deferred(NOW)) for _ in range(3))
    await store.add(pool, [waiting, settled])
    await store.settle(pool, [settled.deferral.key], NOW)
    for left in (settled, forgotten):
        await pool.execute("INSERT INTO events VALUES ($1, $2, $3, 'text')", *left.deferral.key)
    await pool.execute((MIGRATIONS / "0002_orphans.sql").read_text())
    assert [row[0] for row in await pool.fetch("SELECT message_id FROM events")] == [waiting.deferral.message_id]


async def test_what_another_replica_is_taking_is_passed_over(pool: Pool) -> None:
    taken, free = (arrival(deferred()) for _ in range(2))
    await store.add(pool, [taken, free])
    async with pool.acquire() as other, other.transaction(), asyncio.timeout(WITHIN_SECONDS):
        await other.execute("SELECT FROM entries WHERE message_id = $1 FOR UPDATE", taken.deferral.message_id)
        assert await store.claim(pool, 10, NOW, LEASE) == [free]


async def test_what_another_took_again_while_it_was_settled_is_settled(pool: Pool) -> None:
    entry = arrival(deferred())
    await store.add(pool, [entry])
    await store.claim(pool, 10, entry.deferral.due_at, LEASE)
    async with pool.acquire() as other, other.transaction():  # its lease was over for another replica
        await other.execute("UPDATE entries SET leaving_until = leaving_until + interval '1 minute'")
        settling = asyncio.create_task(store.settle(pool, [entry.deferral.key], entry.deferral.due_at))
        async with asyncio.timeout(WITHIN_SECONDS):
            while not await pool.fetchval(_WAITS):
                await asyncio.sleep(0.01)
    await settling
    assert await pool.fetchval("SELECT outcome FROM entries") == "returned"


@pytest.mark.parametrize("do", ["add", "mark", "settle"])
async def test_two_replicas_with_the_same_messages_wait_for_each_other_in_whatever_order_they_came(
    pool: Pool, do: str
) -> None:
    async def act(its: Pool, entries: Sequence[Arrival]) -> None:
        if do == "add":
            await store.add(its, entries)
        elif do == "mark":
            await store.mark(its, [Mark(e.deferral.message_id, e.deferral.cycle) for e in entries], NOW)
        else:
            await store.settle(its, [e.deferral.key for e in entries], NOW)

    entries = [arrival(deferred()) for _ in range(3)]
    if do == "settle":
        await store.add(pool, entries)
    await in_opposite_orders(pool, act, entries)
    assert await pool.fetchval(f"SELECT count(*) FROM {'marks' if do == 'mark' else 'entries'}") == 3


async def test_what_is_rejected_is_so_since_the_first_time_and_what_is_kept_is_not(pool: Pool) -> None:
    rejected, kept, cancelled = (arrival(deferred()) for _ in range(3))
    assert await store.reject(pool, rejected.deferral, NOW) == NOW
    assert await store.reject(pool, rejected.deferral, NOW + LEASE) == NOW
    await store.add(pool, [rejected, kept, cancelled])
    await store.mark(pool, [Mark(cancelled.deferral.message_id, 1)], NOW)
    await store.cancel_marked(pool, [cancelled.deferral.message_id], NOW)
    assert await store.reject(pool, kept.deferral, NOW) is None
    assert await store.reject(pool, cancelled.deferral, NOW) is None
    assert await store.claim(pool, 10, NOW, LEASE) == [kept]
