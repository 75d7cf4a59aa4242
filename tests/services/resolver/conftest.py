"""The resolver's own schema in a database of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.storage.database import Pool, open_database
from services.resolver import decisions
from tests.conftest import DatabaseFactory

MIGRATIONS = Path(decisions.__file__).parent / "migrations"


@pytest.fixture(scope="module")
async def pool(postgres: DatabaseFactory) -> AsyncIterator[Pool]:
    opened = await open_database(await postgres(), "resolver", MIGRATIONS, 3, decisions.PARTITIONED)
    yield opened
    await opened.close()
