"""A real Kafka and a real PostgreSQL for the tests that ask for them: started lazily, once, on free ports, gone with the session.

`TEST_KAFKA_BOOTSTRAP_SERVERS` and `TEST_POSTGRES_DSN` name servers to use instead. Those of a shell that has read `.run/env`,
or is to run Postrider on other servers, are not meant for tests.
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from deploy.local import topology
from deploy.local.kafka import SHORT_RUN, Kafka
from deploy.local.ports import draw_from_share
from deploy.local.postgres import Postgres

DatabaseFactory = Callable[[], Awaitable[str]]

LONGEST = ("faults", "end_to_end", "services/projection", "deploy", "conformance")
"""Where most of the time goes: begun first, so that the processes that share the tests end at about the same time."""
ONE_STACK = ("faults", "end_to_end")
"""Each of these has one running system for all its tests."""

for name in (*topology.KAFKA, "POSTGRES_DSN"):
    os.environ.pop(name, None)

if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # before a test module is imported: some draw a port as they are
    draw_from_share(int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))


class _ByRoom(LoadScopeScheduling):
    """For `make test`, which runs several processes: what shares a stack, or a file, stays in one of them."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _room(file, ONE_STACK) or file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _ByRoom(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(room) if (room := _room(item.nodeid, LONGEST)) else len(LONGEST))


def _room(nodeid: str, rooms: tuple[str, ...]) -> str | None:
    return next((room for room in rooms if nodeid.startswith(f"tests/{room}/")), None)


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Not pytest's own temporary directory: PostgreSQL, which runs as another user when we are root, can't reach that."""
    directory = Path(tempfile.mkdtemp(prefix="postrider-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
async def kafka(server_directory: Path) -> AsyncIterator[str]:
    """The bootstrap servers of one broker for the whole session: give topics and groups names of your own."""
    if given := os.environ.get("TEST_KAFKA_BOOTSTRAP_SERVERS"):
        yield given
        return
    async with Kafka(server_directory / "kafka", java_options=SHORT_RUN) as broker:
        yield broker.bootstrap_servers


@pytest.fixture(scope="session")
async def postgres(server_directory: Path) -> AsyncIterator[DatabaseFactory]:
    """`dsn = await postgres()` makes a fresh, empty database and answers its DSN."""
    numbers = itertools.count(1)
    if given := os.environ.get("TEST_POSTGRES_DSN"):

        async def on_given_server() -> str:
            name = f"test_{os.getpid()}_{next(numbers)}"
            connection = await asyncpg.connect(given)
            try:
                await connection.execute(f'CREATE DATABASE "{name}"')
            finally:
                await connection.close()
            return urlsplit(given)._replace(path=f"/{name}").geturl()

        yield on_given_server
        return
    async with Postgres(server_directory / "postgres") as server:

        async def on_own_server() -> str:
            return await server.create_database(f"test_{next(numbers)}")

        yield on_own_server
