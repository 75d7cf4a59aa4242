"""What a lease knows of Postgres's clock, on a real Postgres."""

import asyncio

from libs.storage.database import Pool
from services.dispatcher.lease import Lease
from tests.services.dispatcher.builders import GATEWAY
from tests.waiting import until

NOW = "SELECT clock_timestamp()"
COMMITS_WAIT = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER wait AFTER UPDATE ON instances DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait();
"""
COMMITS_WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


async def test_a_lease_knows_what_the_clock_of_postgres_shows_at_least(pool: Pool):
    before = await pool.fetchval(NOW)
    lease = Lease(pool, GATEWAY, 5)
    await lease.register()
    registered = lease.postgres_time
    assert before < registered < await pool.fetchval(NOW)
    await lease.beat()
    assert registered < lease.postgres_time < await pool.fetchval(NOW)


async def test_a_renewal_whose_commit_takes_long_tells_no_time_of_long_ago(pool: Pool):
    lease = Lease(pool, GATEWAY, 60)
    await lease.register()
    await pool.execute(COMMITS_WAIT)
    try:
        async with pool.acquire() as other, other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock(1)")
            beating = asyncio.create_task(lease.beat())
            await until(lambda: pool.fetchval(COMMITS_WAITING))
            meanwhile = await pool.fetchval("SELECT clock_timestamp() FROM pg_sleep(1)")
        await beating
        assert lease.postgres_time > meanwhile
    finally:
        await pool.execute("DROP FUNCTION wait CASCADE")
