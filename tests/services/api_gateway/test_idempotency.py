"""What is promised for an Idempotency-Key, in a real Postgres."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from pathlib import Path

import pytest

import services.api_gateway
from libs.bus.port import Outgoing
from libs.contracts.message_ids import new_message_id
from libs.storage.database import BY_KEY, Pool, open_database
from services.api_gateway import idempotency
from services.api_gateway.forgetting import forget_old
from services.api_gateway.idempotency import InProgress, Ledger, OtherBody, Publish, Published, Reservation
from tests.conftest import DatabaseFactory

MIGRATIONS = Path(services.api_gateway.__path__[0]) / "migrations"


@pytest.fixture(scope="module")
async def pool(postgres: DatabaseFactory) -> AsyncIterator[Pool]:
    opened = await open_database(await postgres(), "api", MIGRATIONS, 5, parameters=BY_KEY)
    yield opened
    await opened.close()


@pytest.fixture
async def ledger(pool: Pool) -> Ledger:
    await pool.execute("TRUNCATE idempotency_keys")
    return Ledger(pool)


def wish(key: str, body: bytes = b"{}") -> Reservation:
    """A new request with this key."""
    message_id = new_message_id()
    record = Outgoing("sms.requested", b"demo/client/1", b"event of " + str(message_id).encode())
    return Reservation(key, sha256(body).digest(), message_id, message_id.int % 1000, record)


async def expire_claims(pool: Pool) -> None:
    await pool.execute("UPDATE idempotency_keys SET claimed_at = now() - interval '11 seconds'")


async def test_a_new_key_is_claimed_with_its_own_event(ledger: Ledger, pool: Pool) -> None:
    asked = [wish(f"k{n}") for n in (3, 1, 2)]
    verdicts = await ledger.reserve(asked)
    assert verdicts == [Publish(r.message_id, r.number, r.record) for r in asked]
    stored = await pool.fetch("SELECT key, event FROM idempotency_keys")
    assert {row["key"]: row["event"] for row in stored} == {r.key: r.record.value for r in asked}


async def test_a_key_that_someone_publishes_is_in_progress_for_at_most_ten_seconds(ledger: Ledger) -> None:
    await ledger.reserve([wish("k")])
    (verdict,) = await ledger.reserve([wish("k")])
    assert isinstance(verdict, InProgress)
    assert 1 <= verdict.seconds_left <= 10


async def test_a_key_used_for_another_body_is_told_apart_in_every_state(ledger: Ledger, pool: Pool) -> None:
    await ledger.reserve([wish("k")])
    assert await ledger.reserve([wish("k", b"other")]) == [OtherBody()]
    await ledger.release(["k"])
    assert await ledger.reserve([wish("k", b"other")]) == [OtherBody()]
    await expire_claims(pool)
    assert await ledger.reserve([wish("k", b"other")]) == [OtherBody()]
    (verdict,) = await ledger.reserve([wish("k")])
    assert isinstance(verdict, Publish), "another body holds up nobody who repeats the first"
    await ledger.mark(["k"])
    assert await ledger.reserve([wish("k", b"other")]) == [OtherBody()]


async def test_a_published_key_answers_its_ids_and_holds_no_personal_data(ledger: Ledger, pool: Pool) -> None:
    first = wish("k")
    await ledger.reserve([first])
    await ledger.mark(["k"])
    await expire_claims(pool)
    before = await pool.fetchrow("SELECT xmin, * FROM idempotency_keys")
    assert await ledger.reserve([wish("k")]) == [Published(first.message_id, first.number)]
    row = await pool.fetchrow("SELECT xmin, * FROM idempotency_keys")
    assert row == before, "a repeat writes nothing"
    assert row is not None
    assert row["event"] is None
    assert row["record_key"] is None


async def test_a_claim_that_ran_out_is_taken_over_with_the_stored_event_once(ledger: Ledger, pool: Pool) -> None:
    first = wish("k")
    await ledger.reserve([first])
    await expire_claims(pool)
    verdicts = await asyncio.gather(*(ledger.reserve([wish("k")]) for _ in range(5)))
    taken = [v for (v,) in verdicts if isinstance(v, Publish)]
    assert taken == [Publish(first.message_id, first.number, first.record)]
    assert sum(isinstance(v, InProgress) for (v,) in verdicts) == 4


async def test_a_released_claim_is_taken_over_at_once(ledger: Ledger) -> None:
    first = wish("k")
    await ledger.reserve([first])
    await ledger.release(["k"])
    assert await ledger.reserve([wish("k")]) == [Publish(first.message_id, first.number, first.record)]


async def test_a_release_does_not_touch_what_is_published(ledger: Ledger, pool: Pool) -> None:
    first = wish("k")
    await ledger.reserve([first])
    await ledger.mark(["k"])
    before = await pool.fetchrow("SELECT xmin, * FROM idempotency_keys")
    await ledger.release(["k"])
    assert await pool.fetchrow("SELECT xmin, * FROM idempotency_keys") == before
    assert await ledger.reserve([wish("k")]) == [Published(first.message_id, first.number)]


async def test_of_racing_replicas_exactly_one_gets_each_key(ledger: Ledger, pool: Pool) -> None:
    keys = [f"k{n}" for n in range(40)]
    replicas = [Ledger(pool) for _ in range(4)]
    asked = [[wish(key) for key in (keys if n % 2 else reversed(keys))] for n in range(4)]
    answers = await asyncio.gather(*(r.reserve(a) for r, a in zip(replicas, asked, strict=True)))
    for key in keys:
        verdicts = [v for a, vs in zip(asked, answers, strict=True) for r, v in zip(a, vs, strict=True) if r.key == key]
        assert sum(isinstance(v, Publish) for v in verdicts) == 1
        assert sum(isinstance(v, InProgress) for v in verdicts) == 3


@pytest.mark.parametrize("change", [Ledger.mark, Ledger.release])
async def test_keys_are_locked_in_the_order_in_which_they_are_reserved(
    ledger: Ledger, pool: Pool, change: Callable[[Ledger, list[str]], Awaitable[None]]
) -> None:
    keys = [f"k{n:02}" for n in range(40)]
    for key in reversed(keys):  # as they lie in the table
        await ledger.reserve([wish(key)])
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM idempotency_keys WHERE key = $1 FOR UPDATE", keys[0])
        changing = asyncio.create_task(change(ledger, keys))
        async with asyncio.timeout(20):
            while not await pool.fetchval(waiting):
                assert not changing.done()
        await other.execute("SELECT FROM idempotency_keys WHERE key = $1 FOR UPDATE NOWAIT", keys[-1])
    await changing
    changed = "SELECT count(*) FROM idempotency_keys WHERE event IS NULL OR claimed_at = '-infinity'"
    assert await pool.fetchval(changed) == len(keys)


async def test_one_batch_may_meet_every_state(ledger: Ledger, pool: Pool) -> None:
    old, done, busy = wish("old"), wish("done"), wish("busy")
    await ledger.reserve([old, done])
    await ledger.mark(["done"])
    await expire_claims(pool)
    await ledger.reserve([busy])
    fresh = wish("fresh")
    verdicts = await ledger.reserve([fresh, wish("busy"), wish("done"), wish("old")])
    assert verdicts[0] == Publish(fresh.message_id, fresh.number, fresh.record)
    assert isinstance(verdicts[1], InProgress)
    assert verdicts[2:] == [
        Published(done.message_id, done.number),
        Publish(old.message_id, old.number, old.record),
    ]


async def test_keys_are_forgotten_after_a_day(ledger: Ledger, pool: Pool) -> None:
    await ledger.reserve([wish(f"k{n}") for n in range(5)])
    await pool.execute("UPDATE idempotency_keys SET reserved_at = now() - interval '23 hours 59 minutes'")
    await forget_old(pool)
    assert await pool.fetchval("SELECT count(*) FROM idempotency_keys") == 5
    await pool.execute(
        "UPDATE idempotency_keys SET reserved_at = now() - interval '24 hours 1 second' WHERE key <> 'k0'"
    )
    await forget_old(pool)
    assert [row["key"] for row in await pool.fetch("SELECT key FROM idempotency_keys")] == ["k0"]


async def test_a_key_that_is_deleted_as_it_is_looked_at_may_be_tried_again() -> None:
    assert idempotency._verdict(wish("k"), None, set()) == InProgress(1)


async def test_a_postgres_that_is_silent_keeps_nobody_waiting(
    ledger: Ledger, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "TIMEOUT_SECONDS", 0.05)
    async with pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE idempotency_keys")
        keys = ["k"]
        for asked in (ledger.reserve([wish("k")]), ledger.known(keys), ledger.mark(keys), ledger.forget("k")):
            with pytest.raises(TimeoutError):
                await asked


async def test_blocks_of_numbers_are_disjoint_across_replicas(pool: Pool) -> None:
    firsts = await asyncio.gather(*(Ledger(pool).next_block() for _ in range(8)))
    assert all(first > 0 for first in firsts)
    gaps = [b - a for a, b in zip(sorted(firsts), sorted(firsts)[1:], strict=False)]
    assert set(gaps) == {10_000}


async def test_in_a_young_table_keys_are_found_by_the_index(ledger: Ledger, pool: Pool) -> None:
    await pool.execute("ALTER TABLE idempotency_keys SET (autovacuum_enabled = off)")
    keys = [f"k{n}" for n in range(2000)]
    await ledger.reserve([wish(key) for key in keys])
    plan = await pool.fetch(f"EXPLAIN {idempotency._MARK}", keys[:60])
    assert "idempotency_keys_pkey" in "\n".join(row[0] for row in plan)
