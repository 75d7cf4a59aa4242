"""The moment at which the rebuilt table takes the place of the live one, and who is beside it then."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from libs.storage.database import MigrationError, migrate
from libs.storage.partitions import make_ahead, span
from libs.storage.retention import drop_old
from services.projection import store
from services.projection.rebuild import rebuilding as steps
from services.projection.store import MIGRATIONS, PARTITIONED, SCHEMA
from tests.conftest import DatabaseFactory
from tests.services.projection.conftest import dump, fold_in, waiting
from tests.services.projection.rebuild.rebuilding import Outbox, before, numbers, open_outbox, stories
from tests.services.projection.stories import START, Story
from tests.waiting import until


@pytest.fixture
async def outbox(kafka: str, postgres: DatabaseFactory) -> AsyncIterator[Outbox]:
    async with open_outbox(await postgres(), kafka) as outbox:
        yield outbox


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "LOCK_MILLISECONDS", 100)
    monkeypatch.setattr(steps, "RETRY_SECONDS", 0.05)


@pytest.mark.usefixtures("impatient")
async def test_a_reader_who_takes_long_puts_the_swap_off_and_holds_nobody_up(outbox: Outbox) -> None:
    told = Story(next(numbers)).delivered()
    await fold_in(outbox.pool, told[:2])
    async with outbox.pool.acquire() as reader:
        reading = reader.transaction()
        await reading.start()
        await reader.fetch("SELECT * FROM messages")
        rebuilding = asyncio.create_task(outbox.rebuild())
        await until(outbox.has_said("busy"), "a first try")
        await reading.rollback()
        await rebuilding
    await fold_in(outbox.pool, told[2:])
    assert await outbox.check() == ["equal"]


@pytest.mark.usefixtures("impatient")
async def test_a_table_that_is_never_free_is_an_error_and_stays_as_it_was(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "SWAPS", 2)
    await fold_in(outbox.pool, Story(next(numbers)).delivered())
    before = await dump(outbox.pool)
    async with outbox.pool.acquire() as reader, reader.transaction():
        await reader.fetch("SELECT * FROM messages")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await outbox.rebuild()
    assert await dump(outbox.pool) == before


async def test_an_applier_who_has_looked_at_the_table_and_waits_to_write_it_puts_the_swap_off(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fold_in(outbox.pool, [step for story in stories(5) for step in story])
    appliers: list[asyncio.Task[None]] = []

    async def apply() -> None:
        connection = await asyncpg.connect(outbox.dsn, server_settings={"search_path": "outbox"})
        async with connection.transaction():
            await store.write_messages(connection, [])
        await connection.close()

    async def meet_an_applier() -> None:
        if not appliers:
            appliers.append(asyncio.create_task(apply()))
            await until(waiting(outbox.pool, 1), "an applier that waits")

    before(monkeypatch, "_swap", meet_an_applier)
    await outbox.rebuild()
    await asyncio.gather(*appliers)
    assert await outbox.has_said("busy")()
    assert await outbox.check() == ["equal"]


@pytest.mark.usefixtures("impatient")
async def test_a_check_that_has_begun_puts_the_swap_off(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    await fold_in(outbox.pool, [step for story in stories(5) for step in story])
    has_read, may_go_on = asyncio.Event(), asyncio.Event()

    async def held(*arguments: Any) -> Any:
        has_read.set()
        await may_go_on.wait()
        return await rows(*arguments)

    rows = store.read_rows
    monkeypatch.setattr(store, "read_rows", held)
    compared = asyncio.create_task(outbox.check())
    await has_read.wait()  # of the journal, and nothing of the rows
    rebuilding = asyncio.create_task(outbox.rebuild())
    await until(outbox.has_said("busy", "swapped"), "a first try")
    may_go_on.set()
    assert await compared == ["equal"]
    await rebuilding


async def test_what_has_grown_too_old_during_a_rebuild_does_not_come_back(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = START - timedelta(days=60)
    old, young = Story(next(numbers), at=long_ago), Story(next(numbers))
    async with outbox.pool.acquire() as connection:
        await make_ahead(connection, PARTITIONED, long_ago)
    await fold_in(outbox.pool, [*old.delivered(), *young.delivered()])
    name: str = await outbox.pool.fetchval(
        "SELECT tableoid::regclass::text FROM messages WHERE message_id = $1", old.id
    )

    async def detach() -> None:  # and who did so dies before the drop
        for table in ("messages", "events"):
            await outbox.pool.execute(f"ALTER TABLE {table} DETACH PARTITION {name.replace('messages', table)}")

    before(monkeypatch, "_swap_when_caught_up", detach)
    await outbox.rebuild()
    assert await outbox.check() == ["equal"]
    await drop_old(outbox.pool, PARTITIONED, START - timedelta(days=30))
    assert await outbox.pool.fetchval("SELECT to_regclass($1) IS NULL", name)
    assert await outbox.pool.fetchval("SELECT array_agg(message_id) FROM messages") == [young.id]


async def test_a_partition_that_is_made_during_a_rebuild_is_there_afterwards(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = START + timedelta(days=600)
    start, _ = span(PARTITIONED[0], at)

    async def make() -> None:
        async with outbox.pool.acquire() as connection:
            await make_ahead(connection, PARTITIONED, at)

    before(monkeypatch, "_swap_when_caught_up", make)
    await outbox.rebuild()
    assert await outbox.pool.fetchval("SELECT to_regclass($1) IS NOT NULL", f"messages_{start:%Y%m%d}")


async def test_what_is_migrated_during_a_rebuild_stays_migrated(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await fold_in(outbox.pool, Story(next(numbers)).delivered())
    of_next_release = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    made, held_up = "CREATE INDEX messages_batch ON messages (batch);", "SELECT pg_advisory_xact_lock(1)"
    (of_next_release / "9999_batch.sql").write_text(made + held_up)
    connection = await asyncpg.connect(outbox.dsn)
    migrating: list[asyncio.Task[None]] = []

    async def upgrade() -> None:
        if not migrating:
            migrating.append(asyncio.create_task(migrate(connection, SCHEMA, of_next_release)))
            await until(waiting(outbox.pool, 1), "a migration that has begun")

    before(monkeypatch, "_stop_writers", upgrade)
    async with outbox.pool.acquire() as holder, holder.transaction():
        await holder.execute(held_up)
        rebuilding = asyncio.create_task(outbox.rebuild())
        await until(waiting(outbox.pool, 2), "a swap that waits for it")
    with pytest.raises(MigrationError, match="begin anew"):
        await rebuilding
    await asyncio.gather(*migrating)
    await connection.close()
    outbox.said.clear()
    with pytest.raises(MigrationError, match="begin anew"):
        await outbox.rebuild()
    assert not outbox.said, "nothing is folded in vain"
    monkeypatch.setattr(steps, "MIGRATIONS", of_next_release)
    await outbox.rebuild()
    assert await outbox.pool.fetchval("SELECT to_regclass('messages_batch') IS NOT NULL")
    assert await outbox.check() == ["equal"]


async def test_what_lies_in_the_default_partition_since_its_own_could_not_be_made_is_there_afterwards(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime.now(UTC)
    start, _ = span(PARTITIONED[0], at)
    await outbox.pool.execute(f"DROP TABLE messages_{start:%Y%m%d}")
    await fold_in(outbox.pool, Story(next(numbers), at=at).delivered())
    async with outbox.pool.acquire() as reader:
        reading = reader.transaction()
        await reading.start()
        await reader.fetch("SELECT * FROM messages")  # so the rebuild can't make it either
        before(monkeypatch, "_fold_journal", reading.rollback)
        await outbox.rebuild()
    assert await outbox.check() == ["equal"]
