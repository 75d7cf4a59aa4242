from collections.abc import AsyncIterator

import pytest

from libs.storage.database import Pool, open_database
from services.inbound.store import MIGRATIONS, PARTITIONED, SCHEMA
from tests.conftest import DatabaseFactory


@pytest.fixture(scope="session")
async def inbound_database(postgres: DatabaseFactory) -> AsyncIterator[Pool]:
    pool = await open_database(await postgres(), SCHEMA, MIGRATIONS, connections=4, partitioned=PARTITIONED)
    yield pool
    await pool.close()


@pytest.fixture
async def pool(inbound_database: Pool) -> Pool:
    """The service's own schema, empty."""
    await inbound_database.execute("TRUNCATE parts")
    return inbound_database
