"""Old ids, receipts and doubts go; nothing younger does, and nothing that is in use."""

import asyncio
from datetime import timedelta

import pytest

from libs.storage.database import Pool
from services.receipts import forgetting
from services.receipts.forgetting import forget
from tests.services.receipts.examples import (
    NOON,
    OTHER_DESTINATION,
    in_doubt,
    many_registrations,
    receipt,
    seconds,
    submitted,
    take,
)

DAY = 24 * 3600


async def came(pool: Pool, *events: object) -> None:
    async with pool.acquire() as connection:
        await take(connection, *events)


async def known(pool: Pool) -> list[tuple[str, int, bool]]:
    rows = await pool.fetch("SELECT provider_id, reuse, message_id IS NOT NULL FROM provider_ids ORDER BY 1, 2")
    return [tuple(row) for row in rows]


async def parked(pool: Pool) -> list[str]:
    return [row[0] for row in await pool.fetch("SELECT provider_id FROM parked ORDER BY 1")]


async def test_what_is_older_goes_and_what_is_younger_stays(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "BATCH_IDS", 3)
    old = [submitted(f"old{n}", n) for n in range(10)]
    young = [submitted(f"young{n}", 20 + n, observed_at=seconds(DAY)) for n in range(3)]
    kept = [submitted(f"again{n}", 40 + n, observed_at=seconds(-9)) for n in range(3)]
    again = [submitted(f"again{n}", 50 + n, observed_at=seconds(DAY)) for n in range(3)]
    await came(pool, *kept)
    await came(pool, *old, *young, *again, in_doubt(7, message=30), in_doubt(8, message=31, observed_at=seconds(DAY)))
    await forget(pool, seconds(3600))
    assert [name for name, *_ in await known(pool)] == [
        *("again0", "again0", "again1", "again1", "again2", "again2"),
        *("young0", "young1", "young2"),
    ]
    assert await pool.fetchval("SELECT array_agg(reference) FROM doubts") == [8]
    await forget(pool, seconds(DAY + 1))
    assert await known(pool) == []


async def test_an_ids_rows_go_together(pool: Pool) -> None:
    await came(pool, submitted("a", 1), submitted("b", 2))
    await came(pool, submitted("a", 3, observed_at=seconds(DAY)))
    await forget(pool, seconds(3600))
    assert await known(pool) == [("a", 0, True), ("a", 1, True)]
    await forget(pool, seconds(DAY + 1))
    assert await known(pool) == []


async def test_parked_receipts_go_by_their_own_age_and_then_the_id_that_only_they_named(pool: Pool) -> None:
    await came(pool, receipt("never", at=0), receipt("both", at=0), receipt("both", at=DAY))
    await came(pool, submitted("matched"), receipt("matched", destination=OTHER_DESTINATION))
    young = submitted("young", 2, observed_at=seconds(DAY))
    await came(pool, young, receipt("young", at=0, destination=OTHER_DESTINATION))
    await forget(pool, seconds(3600))
    assert await parked(pool) == ["both"]
    assert await known(pool) == [("both", 0, False), ("young", 0, True)]
    await forget(pool, seconds(DAY + 1))
    assert (await parked(pool), await known(pool)) == ([], [])


async def test_an_old_id_that_a_young_receipt_waits_for_stays(pool: Pool) -> None:
    await came(pool, submitted("a"))
    await came(pool, receipt("a", at=40 * DAY))
    assert await parked(pool) == ["a"]
    await forget(pool, seconds(35 * DAY))
    assert await known(pool) == [("a", 0, True)]


async def test_an_id_that_is_locked_now_is_left_for_the_next_time(pool: Pool) -> None:
    await came(pool, submitted("a"), submitted("b", 2), receipt("c"))
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM provider_ids WHERE provider_id IN ('a', 'c') AND reuse = 0 FOR UPDATE")
        async with asyncio.timeout(10):
            await forget(pool, seconds(3600))
        assert [name for name, *_ in await known(pool)] == ["a", "c"]
        assert await parked(pool) == ["c"]
    await forget(pool, seconds(3600))
    assert (await known(pool), await parked(pool)) == ([], [])


async def test_after_that_an_id_may_be_used_again(pool: Pool) -> None:
    await came(pool, submitted("a"))
    await forget(pool, NOON + timedelta(days=35))
    async with pool.acquire() as connection:
        later = seconds(90 * DAY)
        await take(connection, submitted("a", 2, observed_at=later))
        (match,) = await take(connection, receipt("a", at=90 * DAY + 5))
    assert match.registration.attempt.message_id == submitted("a", 2).subject


async def test_a_batch_reads_only_the_oldest(pool: Pool) -> None:
    """By the plan: the index of times, and one probe for each row."""
    await many_registrations(pool)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("ANALYZE provider_ids")
        await connection.execute("SET LOCAL enable_seqscan = off")
        query = forgetting._LOCK_OLD.replace("$1", f"'{seconds(3600)}'").replace("$2", "2000")
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {query}"))
    assert "Index Scan using provider_ids_registered" in plan
    assert "Join" not in plan
