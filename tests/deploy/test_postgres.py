import os
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest

from deploy.local.ports import PortTakenError
from deploy.local.postgres import Postgres, data_location, programs_and_user
from deploy.local.processes import StartError
from tests.conftest import DatabaseFactory


@pytest.fixture(scope="module")
async def server(server_directory: Path) -> AsyncIterator[Postgres]:
    async with Postgres(server_directory / "own-postgres") as postgres:
        yield postgres


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def fetch_value(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_what_was_committed_is_there_after_a_restart_and_after_a_kill(server: Postgres) -> None:
    dsn = await server.create_database("kept")
    await execute(dsn, "CREATE TABLE facts AS SELECT 'kept' AS fact")
    await server.restart()
    assert await fetch_value(dsn, "SELECT fact FROM facts") == "kept"
    await server.kill()
    assert server.pid is None
    await server.start()
    assert await fetch_value(dsn, "SELECT fact FROM facts") == "kept"


async def test_a_commit_is_on_disk_when_it_is_answered(server: Postgres) -> None:
    assert await fetch_value(server.dsn(), "SHOW fsync") == "on"
    assert await fetch_value(server.dsn(), "SHOW synchronous_commit") == "on"


async def test_a_wrong_password_is_refused(server: Postgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(server.dsn(), password="guessed")


async def test_its_password_is_in_one_file_which_its_owner_alone_may_read(server: Postgres) -> None:
    data = data_location(server.directory)
    assert not data.with_name(f"{data.name}.password").exists()
    assert (server.directory / "password").stat().st_mode & 0o077 == 0


async def test_a_start_that_was_interrupted_begins_afresh(server_directory: Path) -> None:
    directory = server_directory / "interrupted"
    (directory / "data").mkdir(parents=True)
    (directory / "data" / "PG_VERSION").write_text("15\n")  # initdb had begun, and never ended
    async with Postgres(directory) as postgres:
        assert await fetch_value(postgres.dsn(), "SELECT 1") == 1


async def test_data_that_is_gone_is_told_of_and_not_made_anew(server_directory: Path) -> None:
    directory = server_directory / "gone"
    elsewhere = server_directory / "elsewhere"
    directory.mkdir()
    elsewhere.mkdir()
    (directory / "data").symlink_to(elsewhere)
    async with Postgres(directory) as postgres:
        pass
    shutil.rmtree(elsewhere)  # as with a container that is made anew over a volume with the checkout
    for _ in range(2):
        with pytest.raises(StartError, match=f"the data in {elsewhere} is gone.*make reset"):
            await postgres.start()
    elsewhere.mkdir()
    with pytest.raises(StartError, match="is gone"):
        await postgres.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's data lie elsewhere")
async def test_an_interrupted_start_begins_afresh_where_its_data_are_gone(
    server_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = server_directory / "closed"
    directory.mkdir(mode=0o700)
    home = server_directory / "home"
    monkeypatch.setattr("deploy.local.postgres.ROOT_HOME", home)
    (directory / "data").symlink_to(home / "data-gone")
    async with Postgres(directory) as postgres:
        assert await fetch_value(postgres.dsn(), "SELECT 1") == 1


async def test_a_port_that_is_taken_is_named(server: Postgres, server_directory: Path) -> None:
    with pytest.raises(PortTakenError, match=f"port {server.port} .* PostgreSQL is taken"):
        await Postgres(server_directory / "second-postgres", port=server.port).start()


async def test_a_server_that_ends_while_starting_shows_its_log(server_directory: Path) -> None:
    directory = server_directory / "damaged"
    async with Postgres(directory) as postgres:
        (directory / "data" / "global" / "pg_control").unlink()
        await postgres.kill()
        with pytest.raises(StartError, match=r"(?s)ended while starting.*pg_control"):
            await postgres.start()


async def test_data_of_another_version_is_named_and_left_alone(server_directory: Path) -> None:
    directory = server_directory / "other-version"
    async with Postgres(directory) as postgres:
        dsn = await postgres.create_database("kept")
    version = directory / "data" / "PG_VERSION"
    made_by = version.read_text()
    version.write_text("9\n")
    with pytest.raises(StartError, match="was made by PostgreSQL 9"):
        await Postgres(directory, port=postgres.port).start()
    version.write_text(made_by)
    async with Postgres(directory, port=postgres.port):
        assert await fetch_value(dsn, "SELECT 1") == 1


async def test_every_call_of_the_fixture_gives_a_fresh_database(postgres: DatabaseFactory) -> None:
    first, second = await postgres(), await postgres()
    await execute(first, "CREATE TABLE facts ()")
    assert await fetch_value(second, "SELECT to_regclass('facts')") is None


def test_servers_that_start_at_once_share_one_copy_of_programs_that_only_root_can_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "root/package/install/bin"
    programs.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (programs / name).write_text("#!/bin/sh\necho postgres 18.1\n")
        (programs / name).chmod(0o755)
    for number in range(300):
        (programs / f"file-{number}").touch()
    (tmp_path / "root/package.libs").mkdir()
    monkeypatch.setattr("deploy.local.postgres_binaries.installed", lambda: None)
    monkeypatch.setattr("deploy.local.postgres_binaries.embedded", lambda: programs)
    monkeypatch.setattr("deploy.local.postgres.ROOT_HOME", tmp_path / "home")
    monkeypatch.setattr("deploy.local.postgres.system_user", lambda: None)
    monkeypatch.setattr("deploy.local.postgres.reachable", lambda _path: False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with ThreadPoolExecutor(8) as starts:
        found = {future.result() for future in [starts.submit(programs_and_user) for _ in range(8)]}
    assert found == {(tmp_path / "home/server-18/package/install/bin", None)}
    assert len(list((tmp_path / "home/server-18/package/install/bin").iterdir())) == 302
