"""What services say of a PostgreSQL that has gone, also those that have nothing to do."""

from urllib.parse import urlsplit

import asyncpg

from deploy.local.stack import Stack
from deploy.local.supervisor import SupervisedProcess, missing
from tests.waiting import until


async def test_every_service_looks_for_postgresql_itself_and_is_ready_once_it_is_back(stack: Stack) -> None:
    services = [process for process in stack.processes if process.spec.name != "carrier"]
    database = urlsplit(stack.postgres_dsn).path.strip("/")
    connection = await asyncpg.connect(stack.postgres_dsn, database="postgres")
    try:
        await connection.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)
        for service in services:
            await until(lambda service=service: _misses_postgres(service), service.spec.name)
    finally:
        await connection.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
        await connection.close()
        for service in services:
            await service.wait_until_ready()


async def _misses_postgres(service: SupervisedProcess) -> bool:
    return '"postgres": "does not answer' in (await missing(service.spec.ready_url) or "")
