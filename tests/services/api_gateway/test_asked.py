"""What was first asked about a message, in a real Postgres; and a key that is looked up or given free."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

import services.api_gateway
from libs.bus.port import Outgoing
from libs.contracts.message_ids import new_message_id
from libs.storage.database import Pool, open_database
from services.api_gateway import asked as asked_module
from services.api_gateway.asked import Ask, AskedTable, What
from services.api_gateway.forgetting import forget_old
from services.api_gateway.idempotency import Ledger, Publish, Reservation
from tests.conftest import DatabaseFactory

MIGRATIONS = Path(services.api_gateway.__path__[0]) / "migrations"


@pytest.fixture(scope="module")
async def pool(postgres: DatabaseFactory) -> AsyncIterator[Pool]:
    opened = await open_database(await postgres(), "api", MIGRATIONS, 5)
    yield opened
    await opened.close()


def asked(by: str) -> Ask:
    return Ask(datetime.now(UTC), by, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


async def test_of_those_who_ask_at_once_all_are_told_the_same(pool: Pool) -> None:
    message_id = new_message_id()
    tables = [AskedTable(pool) for _ in range(8)]
    wishes = [asked(f"caller-{n}") for n in range(8)]
    told = await asyncio.gather(
        *(t.first(What.RESEND, message_id, 2, wish) for t, wish in zip(tables, wishes, strict=True))
    )
    assert len(set(told)) == 1
    assert told[0] in wishes
    assert await AskedTable(pool).first(What.RESEND, message_id, 2, asked("late")) == told[0]


async def test_each_cycle_and_each_kind_is_asked_by_itself(pool: Pool) -> None:
    table, message_id, wish = AskedTable(pool), new_message_id(), asked("first")
    await table.first(What.CANCEL, message_id, 1, wish)
    for what, cycle in ((What.CANCEL, 2), (What.RESEND, 1)):
        other = asked("other")
        assert await table.first(what, message_id, cycle, other) == other


async def test_the_newest_cycle_of_a_kind_is_known(pool: Pool) -> None:
    table, message_id = AskedTable(pool), new_message_id()
    assert await table.newest(What.RESEND, message_id) is None
    for what, cycle in ((What.RESEND, 3), (What.RESEND, 2), (What.CANCEL, 4)):
        await table.first(what, message_id, cycle, asked("first"))
    assert await table.newest(What.RESEND, message_id) == 3


async def test_a_postgres_that_is_silent_keeps_nobody_waiting(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked_module, "TIMEOUT_SECONDS", 0.05)
    table, message_id = AskedTable(pool), new_message_id()
    async with pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE asked")
        for waiting in (table.first(What.CANCEL, message_id, 1, asked("a")), table.newest(What.CANCEL, message_id)):
            with pytest.raises(TimeoutError):
                await waiting


async def test_what_is_old_is_forgotten(pool: Pool) -> None:
    table, old, new = AskedTable(pool), new_message_id(), new_message_id()
    for message_id in (old, new):
        await table.first(What.CANCEL, message_id, 1, asked("first"))
    for message_id, age in ((old, timedelta(days=7, seconds=1)), (new, timedelta(days=6, hours=23))):
        await pool.execute("UPDATE asked SET asked_at = now() - $2::interval WHERE message_id = $1", message_id, age)
    await forget_old(pool)
    left = {row[0] for row in await pool.fetch("SELECT message_id FROM asked")}
    assert new in left
    assert old not in left


async def test_a_key_is_known_until_it_is_forgotten_which_what_is_published_never_is(pool: Pool) -> None:
    ledger = Ledger(pool)

    def wish(key: str) -> Reservation:
        return Reservation(key, sha256(b"").digest(), new_message_id(), 1, Outgoing("", b"", b"{}"))

    await ledger.reserve([wish("a"), wish("b")])
    await ledger.mark(["b"])
    assert await ledger.known(["a", "b", "c"]) == {"a", "b"}
    await pool.execute("UPDATE idempotency_keys SET reserved_at = now() - interval '24 hours' + interval '30 seconds'")
    assert await ledger.known(["a", "b", "c"]) == set(), "they may be deleted before they are reserved"
    await pool.execute("UPDATE idempotency_keys SET reserved_at = now()")
    await ledger.forget("a")
    await ledger.forget("b")
    assert await ledger.known(["a", "b", "c"]) == {"b"}
    (verdict,) = await ledger.reserve([wish("a")])
    assert isinstance(verdict, Publish)
