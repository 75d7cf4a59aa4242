"""Random histories of the sending protocol: the real claim, ledger, sender, settler, lease, receipts and fold, on a real PostgreSQL.

`SIMULATED_HISTORIES=20000` tries so many new ones, and shows the shortest that fails; give pytest a `--timeout` then.
"""

import asyncio
import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from libs.service_kit import backoff
from libs.storage.database import BY_KEY, Pool, open_database
from services.dispatcher import breaker, sender, settler
from services.dispatcher.ledger import PARTITIONED
from services.dispatcher.main import MIGRATIONS
from services.receipts.main import MIGRATIONS as RECEIPTS_MIGRATIONS
from tests.conftest import DatabaseFactory
from tests.services.dispatcher.simulation.process import AT_FAULT
from tests.services.dispatcher.simulation.properties import at_rest
from tests.services.dispatcher.simulation.steps import happen
from tests.services.dispatcher.simulation.world import World

HISTORIES = int(os.environ.get("SIMULATED_HISTORIES", "0"))
"""0 for a few, which are the same in every run."""
CLOCK = """
CREATE SCHEMA simulated;
CREATE TABLE simulated.clock (now timestamptz NOT NULL);
INSERT INTO simulated.clock VALUES (now());
CREATE FUNCTION simulated.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT now FROM simulated.clock';
"""
GRANTED = """
CREATE FUNCTION simulated.granted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.outcome IS NULL AND EXISTS (SELECT FROM instances WHERE instance = NEW.owner AND dead) THEN
        RAISE 'granted to an instance whose lease was called over';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER granted BEFORE INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION simulated.granted();
"""
"""A property that can be seen inside a claim alone."""
SESSION = {**BY_KEY, "synchronous_commit": "off"}
CLEARED = "DELETE FROM instances; DELETE FROM rates; DELETE FROM marks; DELETE FROM late_events"
RECEIPTS_CLEARED = "; ".join(
    f"DELETE FROM {table}" for table in ("provider_ids", "parked", "doubts", "reported", "sweeps", "unreported")
)


Simulator = tuple[asyncio.AbstractEventLoop, Pool, Pool]
"""The loop, and the pools of dispatchers and receipts."""


@pytest.fixture(scope="module")
async def dsn(postgres: DatabaseFactory) -> str:
    return await postgres()


@pytest.fixture(scope="module")
def simulator(dsn: str) -> Iterator[Simulator]:
    """A loop of its own, since hypothesis calls no coroutines, and a database whose clock stands still. What is repeated is so at once."""
    loop = asyncio.new_event_loop()
    path = {"search_path": "simulated,pg_catalog,dispatch,public"}  # PostgreSQL's clock is the simulation's
    pool = loop.run_until_complete(open_database(dsn, "dispatch", MIGRATIONS, 2, PARTITIONED, SESSION | path))
    loop.run_until_complete(pool.execute(CLOCK + GRANTED))
    receipts = loop.run_until_complete(open_database(dsn, "receipts", RECEIPTS_MIGRATIONS, 1, parameters=SESSION))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backoff, "FIRST_SECONDS", 0)
        patch.setattr(sender, "REPEAT_FIRST_SECONDS", 0)
        patch.setattr(breaker, "OPENS_AT", AT_FAULT)
        yield loop, pool, receipts
    loop.run_until_complete(pool.close())
    loop.run_until_complete(receipts.close())
    loop.close()


@settings(
    max_examples=HISTORIES or 80,
    derandomize=not HISTORIES,
    phases=[Phase.generate, Phase.shrink] if HISTORIES else [Phase.generate],
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(data=st.data())
def test_whatever_happens_nothing_is_lost_and_nothing_is_taken_twice_unnoticed(
    simulator: Simulator, data: st.DataObject
) -> None:
    loop, pool, receipts = simulator

    def choose(below: int) -> int:
        return data.draw(st.integers(0, below - 1)) if below > 1 else 0

    async def history() -> None:
        await pool.execute(CLEARED)
        await receipts.execute(RECEIPTS_CLEARED)
        world = World(pool, receipts, choose)
        patch.setattr(settler, "datetime", SimpleNamespace(now=lambda _: world.wall))
        try:
            await happen(world, choose(120))
            await at_rest(world)
        finally:
            note("\n".join(world.story))
            for process in world.processes:
                await process.kill()

    with pytest.MonkeyPatch.context() as patch:
        loop.run_until_complete(history())
