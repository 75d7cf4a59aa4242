from collections.abc import AsyncIterator

import pytest

from libs.storage.database import Pool, open_database
from services.receipts.main import MIGRATIONS
from tests.conftest import DatabaseFactory


@pytest.fixture(scope="session")
async def receipts_database(postgres: DatabaseFactory) -> AsyncIterator[Pool]:
    pool = await open_database(await postgres(), "receipts", MIGRATIONS, connections=4)
    yield pool
    await pool.close()


@pytest.fixture
async def pool(receipts_database: Pool) -> Pool:
    """The service's own schema, empty."""
    await receipts_database.execute("TRUNCATE provider_ids, parked, doubts, reported, sweeps, unreported")
    return receipts_database
