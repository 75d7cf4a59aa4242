"""A ledger on a fresh database, a carrier, and the ground of the sending tests."""

from collections.abc import AsyncIterator

import pytest

from libs.storage.database import BY_KEY, Pool, open_database
from services.dispatcher.lease import Lease
from services.dispatcher.ledger import PARTITIONED, Ledger
from services.dispatcher.main import MIGRATIONS
from tests.conftest import DatabaseFactory
from tests.services.dispatcher.builders import GATEWAY
from tests.services.dispatcher.world import carrier, carrier_program, world

__all__ = ["carrier", "carrier_program", "world"]


@pytest.fixture(scope="package")
async def database(postgres: DatabaseFactory) -> AsyncIterator[Pool]:
    opened = await open_database(await postgres(), "dispatch", MIGRATIONS, 8, PARTITIONED, BY_KEY)
    yield opened
    await opened.close()


@pytest.fixture
async def pool(database: Pool) -> Pool:
    await database.execute("TRUNCATE instances, bind_slots, rates, attempts, marks, late_events")
    return database


@pytest.fixture
async def lease(pool: Pool) -> Lease:
    made = Lease(pool, GATEWAY, 5)
    await made.register()
    return made


@pytest.fixture
def ledger(pool: Pool, lease: Lease) -> Ledger:
    return Ledger(pool, GATEWAY, lease.instance, interval_us=0)
