"""What every table of every service can stand: that an operator publishes it, as change data capture does."""

import asyncpg

from deploy import REPOSITORY
from libs.storage.database import migrate
from tests.conftest import DatabaseFactory

TABLES = """
SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = $1 ORDER BY relname"""


async def test_rows_can_be_updated_and_deleted_while_all_tables_are_published(postgres: DatabaseFactory) -> None:
    """For that PostgreSQL asks for a primary key or a replica identity, and a partition gets only the former from its parent."""
    connection = await asyncpg.connect(await postgres())
    await connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    refused: list[str] = []
    for migrations in sorted((REPOSITORY / "services").glob("*/migrations")):
        service = migrations.parent.name
        await migrate(connection, service, migrations)
        for (table,) in await connection.fetch(TABLES, b"p"):
            await connection.execute(f"CREATE TABLE {table}_of_today (LIKE {table} INCLUDING ALL)")
        for (table,) in await connection.fetch(TABLES, b"r"):
            try:
                await connection.execute(f"DELETE FROM {table}")
            except asyncpg.ObjectNotInPrerequisiteStateError:
                refused.append(f"{service}: {table}")
    await connection.close()
    assert refused == []
