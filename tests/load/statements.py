"""PostgreSQL's own statistics of statements, by its library pg_stat_statements."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from deploy.local import postgres
from tests.load.report import Table

MOST = 30
LIBRARY = "pg_stat_statements"
_SETTINGS = {"shared_preload_libraries": LIBRARY, f"{LIBRARY}.track": "all"}
_TOP = """
SELECT calls, rows, total_exec_time * 1000 AS microseconds, wal_bytes, query
  FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
 ORDER BY total_exec_time DESC LIMIT $1
"""


@contextmanager
def counted() -> Generator[bool]:
    """PostgreSQL servers that start within count their statements. False: they don't, since the library is missing, as it is from the
    bundled server.
    """
    if not _is_installed():
        yield False
        return
    before = dict(postgres.SETTINGS)
    postgres.SETTINGS.update(_SETTINGS)
    try:
        yield True
    finally:
        postgres.SETTINGS.clear()
        postgres.SETTINGS.update(before)


async def begin(database: asyncpg.Connection) -> None:
    """Count from here on."""
    await database.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    await database.execute("SELECT pg_stat_statements_reset()")


async def most_expensive(database: asyncpg.Connection, messages: int) -> Table:
    """Those that took longest since `begin`, in which so many messages went through."""
    rows = await database.fetch(_TOP, MOST)
    return Table(
        title="Statements",
        words="Time that they ran, waiting included; those inside functions are counted twice, by themselves and within the call.",
        head=("µs per message", "calls", "rows", "WAL bytes per message", "statement"),
        rows=[
            (
                f"{row['microseconds'] / messages:.2f}",
                f"{row['calls']:,}",
                f"{row['rows']:,}",
                f"{row['wal_bytes'] / messages:.0f}",
                f"`{' '.join(row['query'].split())[:200]}`".replace("|", "\\|"),
            )
            for row in rows
        ],
    )


def _is_installed() -> bool:
    programs, _ = postgres.programs_and_user()
    asked = subprocess.run((programs / "pg_config", "--pkglibdir"), capture_output=True, text=True, check=True)
    return any(Path(asked.stdout.strip()).glob(f"{LIBRARY}.*"))
