from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from libs.bus.codec import encode
from libs.bus.record import Record
from libs.storage.database import Pool, open_database
from services.projection.handlers import apply_batch
from services.projection.journal import Line, lines_in
from services.projection.queries import PARAMETERS
from services.projection.recent import RecentFolds
from services.projection.rows import apart
from services.projection.store import MIGRATIONS, PARTITIONED, SCHEMA
from tests.conftest import DatabaseFactory
from tests.services.projection.stories import Told

OpenPool = Callable[[], Awaitable[Pool]]


@asynccontextmanager
async def opening(postgres: DatabaseFactory) -> AsyncIterator[OpenPool]:
    async with AsyncExitStack() as stack:

        async def opened() -> Pool:
            # As for reads; the fold needs no more than look-ups by key.
            pool = await open_database(await postgres(), SCHEMA, MIGRATIONS, 3, PARTITIONED, PARAMETERS)
            stack.push_async_callback(pool.close)
            return pool

        yield opened


@pytest.fixture
async def open_pool(postgres: DatabaseFactory) -> AsyncIterator[OpenPool]:
    """`await open_pool()` opens an outbox of its own. All are closed after the test."""
    async with opening(postgres) as opened:
        yield opened


@pytest.fixture
async def pool(open_pool: OpenPool) -> Pool:
    return await open_pool()


@pytest.fixture(scope="module")
async def lasting_pool(postgres: DatabaseFactory) -> AsyncIterator[Pool]:
    """One outbox for a module's tests."""
    async with opening(postgres) as opened:
        yield await opened()


def records(told: Iterable[Told], first_offset: int = 0) -> list[Record]:
    """As a consumer would have them, all from partition 0 of their topics."""
    return [
        Record(TopicPartition(topic, 0), offset, key, encode(event), (), None)
        for offset, (topic, key, event) in enumerate(told, start=first_offset)
    ]


async def fold_in(pool: Pool, told: Sequence[Told], batch: int = 1000, recent: RecentFolds | None = None) -> None:
    """Apply all, in batches of this size."""
    recent = recent if recent is not None else RecentFolds(1000)
    every = records(told)
    for start in range(0, len(every), batch):
        part = every[start : start + batch]
        await apply_batch(pool, recent, part, {record.source: record.offset + 1 for record in part})


async def dump(pool: Pool) -> dict[str, list[str]]:
    """Every row of the outbox but the offsets."""
    keys = {"events": "message_id, event_id", "messages": "tenant, message_id", "personal": "message_id, cycle, leg"}
    return {
        table: [row["row"] for row in await pool.fetch(f"SELECT t::text AS row FROM {table} AS t ORDER BY {key}")]
        for table, key in keys.items()
    }


async def said(pool: Pool) -> dict[str, list[Any]]:
    """The same, however its events fell into batches: each by itself, no count of writes, and each text in a row of its own."""
    rows = await pool.fetch(
        "SELECT (to_jsonb(m) - 'version')::text AS row FROM messages AS m ORDER BY tenant, message_id"
    )
    personal = await pool.fetch("SELECT * FROM personal")
    return {
        "events": sorted(await journalled(pool)),
        "messages": [row["row"] for row in rows],
        "personal": sorted(apart(map(tuple, personal)), key=str),
    }


async def journalled(pool: Pool) -> list[Line]:
    """Every line of the journal."""
    entries = await pool.fetch("SELECT message_id, body FROM events")
    return [line for entry in entries for line in lines_in(entry["message_id"], entry["body"])]


def waiting(pool: Pool, number: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many wait for a lock in this database."""

    async def wait() -> bool:
        return await pool.fetchval(
            "SELECT count(*) = $1 FROM pg_locks JOIN pg_database AS d ON d.oid = database"
            " WHERE datname = current_database() AND NOT granted", number,
        )  # fmt: skip

    return wait
