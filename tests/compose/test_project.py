"""That a container which did not stop in order is noticed: `make test-compose` itself sees none."""

from pathlib import Path

import pytest

from deploy.containers import environment
from deploy.containers.docker import Docker
from tests.compose.project import Project

IN_ORDER = {"kafka": 143, "postgres": 0, "resolver": 0}


def project(directory: Path, **exit_codes: int) -> Project:
    """One of an engine whose containers have ended with these codes."""
    ended = [f"id-{service} {service} 0 0 healthy {code}" for service, code in (IN_ORDER | exit_codes).items()]
    engine = directory / "docker"
    engine.write_text('#!/bin/sh\n[ "$1" != ps ] || echo id\n[ "$1" != inspect ] || echo "' + "\n".join(ended) + '"\n')
    engine.chmod(0o755)
    environment.write(directory / "env", {"POSTRIDER_PORT": "1"})
    return Project(Docker(program=str(engine), compose_program=(str(engine), "compose")), directory / "env", "tried")


def test_those_that_end_without_an_error_have_stopped(tmp_path: Path) -> None:
    project(tmp_path).stop()


@pytest.mark.parametrize(
    ("service", "code"), [("resolver", 137), ("resolver", 70), ("resolver", 143), ("postgres", 1), ("kafka", 1)]
)
def test_one_that_was_killed_or_gave_up_draining_is_named(tmp_path: Path, service: str, code: int) -> None:
    with pytest.raises(AssertionError, match=f"not stopped in order.*{{'{service}': {code}}}"):
        project(tmp_path, **{service: code}).stop()
