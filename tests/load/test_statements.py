"""Whether PostgreSQL is asked to count statements."""

from pathlib import Path

import pytest

from deploy.local import postgres
from deploy.local.postgres import Postgres
from tests.load import statements


def server(tmp_path: Path, *libraries: str) -> Path:
    """Programs of a server with these libraries."""
    for library in libraries:
        (tmp_path / library).touch()
    pg_config = tmp_path / "pg_config"
    pg_config.write_text(f'#!/bin/sh\n[ "$1" = --pkglibdir ] && echo "{tmp_path}"\n')
    pg_config.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("libraries", [("plpgsql.so",), ("plpgsql.so", "pg_stat_statements.so")])
def test_the_library_is_preloaded_only_where_the_server_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, libraries: tuple[str, ...]
) -> None:
    programs, before = server(tmp_path, *libraries), dict(postgres.SETTINGS)
    monkeypatch.setattr(postgres, "programs_and_user", lambda: (programs, None))
    with statements.counted() as counted:
        assert counted == ("pg_stat_statements.so" in libraries)
        assert counted == ("shared_preload_libraries" in postgres.SETTINGS)
    assert before == postgres.SETTINGS


async def test_the_server_here_starts_with_what_it_is_asked(server_directory: Path) -> None:
    with statements.counted():
        async with Postgres(server_directory / "statements-postgres"):
            pass
