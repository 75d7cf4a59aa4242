from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from libs.contracts.message_ids import first_id
from libs.storage.database import Pool, open_database
from libs.storage.partitions import Partitioned
from tests.conftest import DatabaseFactory

BY_TIME, BY_UUID = Partitioned("seen", by_uuid=False), Partitioned("sent", by_uuid=True)
TABLES = (BY_TIME, BY_UUID)
NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
SCHEMA = "kept"
SQL = """
CREATE TABLE seen (at timestamptz NOT NULL, n int, PRIMARY KEY (at, n)) PARTITION BY RANGE (at);
CREATE TABLE seen_default PARTITION OF seen DEFAULT;
CREATE TABLE sent (id uuid PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE sent_default PARTITION OF sent DEFAULT;
CREATE TABLE seen_elsewhere (n int);
"""


def id_of(at: datetime) -> UUID:
    return UUID(int=first_id(at).int | 7 << 76 | 1)


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    (tmp_path / "0001_tables.sql").write_text(SQL)
    return tmp_path


@pytest.fixture
async def dsn(postgres: DatabaseFactory) -> str:
    return await postgres()


@pytest.fixture
async def pool(dsn: str, migrations: Path) -> AsyncIterator[Pool]:
    """Without any partition but the default ones."""
    pool = await open_database(dsn, SCHEMA, migrations, 3)
    yield pool
    await pool.close()
