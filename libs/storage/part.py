"""PostgreSQL as a part of a service's life."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from libs.service_kit.lifecycle import Lifecycle
from libs.service_kit.settings import DatabaseSettings
from libs.storage.database import Pool, close_database, open_database
from libs.storage.partitions import Partitioned


async def database_part(
    life: Lifecycle,
    settings: DatabaseSettings,
    schema: str,
    migrations: Path,
    partitioned: tuple[Partitioned, ...] = (),
    parameters: Mapping[str, str] | None = None,
) -> Pool:
    """The pool of `open_database`, once PostgreSQL is there; closed at the stop. The service is ready only while PostgreSQL answers.

    Raises DsnError and MigrationError, and `Stopping` if the service is asked to stop meanwhile.
    """
    dsn = settings.postgres_dsn.unicode_string()
    pool = await life.part(
        "postgres",
        lambda: open_database(dsn, schema, migrations, settings.postgres_connections, partitioned, parameters),
        close_database,
    )
    life.watch("postgres", lambda: pool.fetchval("SELECT 1"))
    return pool
