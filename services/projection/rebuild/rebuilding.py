"""Makes `messages` anew from the journal, beside the live table, and swaps; or only compares the two. See docs/decisions/0016."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg

from libs.service_kit.crash_points import crash_point
from libs.service_kit.kafka import Cluster
from libs.storage.database import MigrationError, open_database
from services.projection import queries, store
from services.projection.rebuild.checking import WHOLE_TABLE_SECONDS, differences
from services.projection.rebuild.progress import Progress
from services.projection.rebuild.refolding import folds_of, lines_of, whole_journal
from services.projection.rebuild.tail import Tail, open_tail
from services.projection.rows import message_row
from services.projection.store import MIGRATIONS, PARTITIONED, SCHEMA, Connection

BESIDE = "outbox_rebuilt"
"""The schema in which the new table is made, by the same migrations, so that all its parts have their right names from the start."""
VERSIONS_APART = 1000
"""More than a row is ever written during a rebuild."""
SMALL_TAIL = 2_000
"""Records that are caught up with in a moment, for which the projection may be held up."""
ROUNDS = 10
LOCK_MILLISECONDS = 2_000
SWAPS = 20
PARAMETERS = {"idle_in_transaction_session_timeout": "5min"}
"""Its transactions wait for Kafka, for folds of thousands of messages, and for whoever reads what it says."""
RETRY_SECONDS = 1.0
MOST_SHOWN = 1_000

Say = Callable[[str], None]

_PARTITIONS = """
SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bound,
       coalesce('WITH (' || array_to_string(c.reloptions, ', ') || ')', '') AS options
  FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid WHERE i.inhparent = $1::regclass
"""
_MADE_ALIKE = f"""
SELECT array(SELECT name FROM {SCHEMA}.migrations ORDER BY name) = array(SELECT name FROM {BESIDE}.migrations ORDER BY name)
"""  # noqa: S608 - names are ours


class AlreadyRebuilding(Exception):
    """Somebody else rebuilds this outbox at the moment."""


async def rebuild(dsn: str, kafka: Cluster, say: Say) -> None:
    """Replace `messages` by what the journal says, however little of it is right.

    Until the swap, and if anything fails, the live table is as it was. Raises AlreadyRebuilding, UnreadableLine, MigrationError,
    DsnError, KafkaError, asyncpg's and the system's errors.
    """
    async with _connection(dsn, SCHEMA) as live:
        if not await live.fetchval("SELECT pg_try_advisory_lock(hashtext('postrider.rebuild-outbox'))"):
            raise AlreadyRebuilding("The outbox is being rebuilt already")
        await live.execute(f"DROP SCHEMA IF EXISTS {BESIDE} CASCADE")  # of a run that did not come to its end
        async with _connection(dsn, BESIDE) as beside, open_tail(kafka, await store.read_positions(live)) as tail:
            await _require_made_alike(live)
            # Everything that is applied from here on is in the tail.
            version = await _fold_journal(live, beside, say)
            crash_point("projection.rebuild-swap")
            await _swap_when_caught_up(live, beside, tail, version, say)


async def check(dsn: str, say: Say) -> int:
    """Compare every row with what the journal says of it: how many differ. Raises as `rebuild` does."""
    async with _connection(dsn, SCHEMA) as live:
        number, progress = 0, Progress("compared", await _count_messages(live), say)
        async for difference in differences(live, progress.reached):
            number += 1
            if number <= MOST_SHOWN:
                say(str(difference))
        progress.end()
    say(f"{number:,} rows differ" if number else "equal")
    return number


async def _fold_journal(live: Connection, beside: Connection, say: Say) -> int:
    """Fill the new table. Answers the version that its rows have: above all that anybody may remember of a row."""
    version: int = VERSIONS_APART + await live.fetchval(
        "SELECT coalesce(max(version), 0) FROM messages", timeout=WHOLE_TABLE_SECONDS
    )
    await _make_partitions(live, beside)
    done, progress = 0, Progress("folded", await _count_messages(live), say)
    async for lines in whole_journal(live):
        folds = folds_of(lines)
        rows = [message_row(UUID(int=key[0]), fold, version) for key, fold in folds.items()]
        await store.insert_messages(beside, rows)
        done += len(rows)
        progress.reached(done)
    progress.end()
    await beside.execute("ANALYZE messages", timeout=WHOLE_TABLE_SECONDS)
    return version


async def _swap_when_caught_up(live: Connection, beside: Connection, tail: Tail, version: int, say: Say) -> None:
    """Fold the tail until it is short, then its end while nobody applies anything, and swap."""
    for _ in range(ROUNDS):
        records = await _catch_up(live, beside, tail, version)
        say(f"caught up with {records:,} records")
        if records <= SMALL_TAIL:
            break
    for left in reversed(range(SWAPS)):
        held_up = time.monotonic()
        try:
            async with live.transaction():
                await live.execute(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")
                await _stop_writers(live)
                await _require_made_alike(live)
                await _catch_up(live, beside, tail, version)
                await _swap(live)
            say(f"swapped; nothing could be applied for {time.monotonic() - held_up:.2f} s")
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            # The latter beside an applier that has looked at the table, and now waits to write it while the swap waits to drop it.
            if not left:
                raise
        say("the table is busy: once more")
        await asyncio.sleep(RETRY_SECONDS)
        await _catch_up(live, beside, tail, version)


async def _stop_writers(live: Connection) -> None:
    """Until the end of the transaction, and migrations. Appliers write rows first, so none is halfway through then; reads go on."""
    await live.execute("SELECT pg_advisory_xact_lock(hashtext('postrider.migrations'))")
    await live.execute("SELECT pg_advisory_xact_lock(hashtext('postrider.partitions'))")
    await live.execute("LOCK TABLE messages IN SHARE MODE")


async def _require_made_alike(live: Connection) -> None:
    """Raises MigrationError where a swap would undo what a migration has changed."""
    if not await live.fetchval(_MADE_ALIKE):
        raise MigrationError(f"{SCHEMA}: another release has migrated it; begin anew with that one")


async def _catch_up(live: Connection, beside: Connection, tail: Tail, version: int) -> int:
    """Fold again, from the journal, the messages of which something was applied since the last time: how many records that were."""
    await _make_partitions(live, beside)
    applied = await store.read_positions(live)
    records = tail.behind(applied)
    async for message_ids in tail.message_ids(applied):
        folds = folds_of(await lines_of(live, sorted(message_ids)))
        if not folds:
            continue
        known = await store.read_stored(beside, folds)
        rows = [
            message_row(UUID(int=key[0]), folds[key], known[key].version + 1 if key in known else version)
            for key in sorted(folds)
        ]
        async with beside.transaction():
            await store.write_messages(beside, rows)
    return records


async def _swap(live: Connection) -> None:
    """Put the new table in the place of the old one. Indexes, and what is prepared for the table's name, follow.

    A partition that the old one has no more has grown too old meanwhile, and goes with the schema.
    """
    names = [row["name"] for row in await live.fetch(_PARTITIONS, "messages")]
    await live.execute("DROP TABLE messages")
    for name in ("messages", *names):
        await live.execute(f"ALTER TABLE {BESIDE}.{name} SET SCHEMA {SCHEMA}")
    await live.execute(f"DROP SCHEMA {BESIDE} CASCADE")


async def _make_partitions(live: Connection, beside: Connection) -> None:
    """Give the new table those of the live one that it does not have yet."""
    for row in await live.fetch(_PARTITIONS, "messages"):
        await beside.execute(
            f"CREATE TABLE IF NOT EXISTS {row['name']} PARTITION OF messages {row['bound']} {row['options']}"
        )


async def _count_messages(live: Connection) -> int:
    return await live.fetchval("SELECT count(*) FROM messages", timeout=WHOLE_TABLE_SECONDS)


@asynccontextmanager
async def _connection(dsn: str, schema: str) -> AsyncGenerator[Connection]:
    """The new table has no partition that the live one does not have: it would go with the schema, and its rows with it."""
    partitioned, parameters = ((), PARAMETERS | queries.PARAMETERS) if schema == BESIDE else (PARTITIONED, PARAMETERS)
    pool = await open_database(dsn, schema, MIGRATIONS, 1, partitioned, parameters)
    try:
        await store.require_rights(pool)
        async with pool.acquire() as connection:
            yield connection
    finally:
        await pool.close()
