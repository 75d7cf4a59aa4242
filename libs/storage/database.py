"""A service's own part of Postgres: a pool that lives in one schema, brought up to date by numbered SQL files."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import structlog
from asyncpg.connect_utils import SessionAttribute

from libs.storage.partitions import Partitioned, make_ahead

log = structlog.get_logger()

Pool = asyncpg.Pool

STATEMENT_TIMEOUT_SECONDS = 30
CANCEL_SECONDS = 2.0
CLOSE_SECONDS = 2.0
IDLE_IN_TRANSACTION_SECONDS = 15
"""After which PostgreSQL ends a transaction that waits for its next statement: its process may be frozen, and its locks hold up others."""
BY_KEY = {"enable_seqscan": "off"}
"""Where all is found by its key: of a young table or partition, until it is analysed, the planner would rather read every row."""


_PINNED = {
    "jit": "off",
    # The bounds of partitions are read as text.
    "timezone": "UTC",
    "datestyle": "ISO",
    # A statement is to see what was committed while it waited.
    "default_transaction_isolation": "read committed",
    # How long something may take is said where it is asked.
    "lock_timeout": "0",
    "statement_timeout": "0",
    # Numbers and texts are nothing for a log.
    "log_parameter_max_length_on_error": "0",
}
"""What holds in every session, whatever the server, the database or the role is set to."""

_USABLE = """
    SELECT has_schema_privilege(oid, 'USAGE') AND has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1"""


class MigrationError(Exception):
    """The migrations that the schema has seen are not those of this release."""


class DsnError(Exception):
    """The DSN can't be followed, whether or not the server is there; or what it leads to can't be used as it is."""


async def open_database(
    dsn: str,
    schema: str,
    migrations: Path,
    connections: int,
    partitioned: tuple[Partitioned, ...] = (),
    parameters: Mapping[str, str] | None = None,
) -> Pool:
    """Bring the schema up to date, make its partitions of now, and open a pool whose search path is that schema.

    `parameters` are run-time parameters of PostgreSQL for all its connections. Several instances may start at once: the migrations
    run under a lock. Raises DsnError, MigrationError, and asyncpg's or the system's errors while no server is there that takes writes.
    """
    try:
        connection = await asyncpg.connect(dsn, timeout=5, target_session_attrs=_target(dsn), server_settings=_PINNED)
    except asyncpg.ClientConfigurationError as error:
        raise DsnError(f"{error}") from None
    try:
        if (encoding := connection.get_settings().server_encoding) != "UTF8":
            raise DsnError(f"the database keeps texts in {encoding}; make one with ENCODING 'UTF8'")
        await migrate(connection, schema, migrations)
        try:
            await make_ahead(connection, partitioned, datetime.now(UTC))
        except asyncpg.LockNotAvailableError:
            # The service makes them as soon as it can (`retention.keep_partitions`); until then the default partition takes the rows.
            log.warning("partitions not made, a table is busy", schema=schema)
    finally:
        await connection.close(timeout=5)
    return await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=connections,
        command_timeout=STATEMENT_TIMEOUT_SECONDS,
        timeout=5,
        target_session_attrs=_target(dsn),
        reset=_end_if_read_only,
        connection_class=_Connection,
        server_settings={
            **_PINNED,
            "search_path": f"{schema},public",
            "application_name": schema,
            "idle_in_transaction_session_timeout": f"{round(IDLE_IN_TRANSACTION_SECONDS * 1000)}ms",
            **(parameters or {}),
        },
    )


async def close_database(pool: Pool) -> None:
    """Take leave of the server. One that says nothing is left without a word: asyncpg would wait for it as long as for a statement, which
    is longer than a stop may take."""
    with suppress(TimeoutError):
        await asyncio.wait_for(pool.close(), CLOSE_SECONDS)


class _Connection(asyncpg.Connection):
    """Ends itself when its server does not confirm in time that a statement was cancelled. asyncpg would wait for that for as long as for
    the statement, and so would whoever cancelled it; a server that has gone without a word never confirms it."""

    async def _cancel(self, *waiters: Any) -> None:
        async with asyncio.timeout(CANCEL_SECONDS) as limit:
            await super()._cancel(*waiters)  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
        if limit.expired() and not self.is_closed():
            self.terminate()


def _target(dsn: str) -> SessionAttribute | None:
    """Which of the servers that the DSN leads to: the one that takes writes, unless the DSN says it itself."""
    return None if "target_session_attrs=" in dsn else SessionAttribute.read_write


async def _end_if_read_only(connection: asyncpg.Connection) -> None:
    """What is done when a connection goes back to the pool: it ends if its server takes no writes any more, which a server tells unasked.

    The next one is made where writes are taken. Nothing here changes a session's state, so there is nothing else to reset. That saves a
    round trip each time; a transaction left open is rolled back all the same.
    """
    settings = connection.get_settings()
    if any(getattr(settings, name, "off") == "on" for name in ("in_hot_standby", "default_transaction_read_only")):
        connection.terminate()


async def migrate(connection: asyncpg.Connection, schema: str, migrations: Path) -> None:
    """Apply, in order and each in its own transaction, the files `NNNN_name.sql` that the schema has not seen."""
    files = sorted(migrations.glob("*.sql"))  # noqa: ASYNC240 - a few small files, once at start
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('postrider.migrations'))")
        await _have(connection, schema)
    await connection.execute(f'SET search_path TO "{schema}", public')
    for file in files:
        text = file.read_text()
        checksum = sha256(text.encode()).hexdigest()
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('postrider.migrations'))")
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS migrations"
                " (name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            )
            known = await connection.fetchval("SELECT checksum FROM migrations WHERE name = $1", file.name)
            if known is None:
                await connection.execute(text)
                await connection.execute("INSERT INTO migrations (name, checksum) VALUES ($1, $2)", file.name, checksum)
                log.info("migration applied", schema=schema, migration=file.name)
            elif known != checksum:
                raise MigrationError(f"{schema}: {file.name} has changed since it was applied")


async def _have(connection: asyncpg.Connection, schema: str) -> None:
    """Make the schema if it is not there. Raises DsnError where the role may not, or may not use or fill the one that is."""
    usable: bool | None = await connection.fetchval(_USABLE, schema)
    if usable is None:
        try:
            await connection.execute(f'CREATE SCHEMA "{schema}"')
        except asyncpg.InsufficientPrivilegeError:
            raise DsnError(
                f"no schema {schema} is there, and the role lacks the right to make it: CREATE on the database"
            ) from None
    elif not usable:
        raise DsnError(f"the role lacks a right on the schema {schema}: USAGE or CREATE")
