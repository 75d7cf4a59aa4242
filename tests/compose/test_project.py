"""What `make test-compose` has to notice, and never meets: a container that does not stop in order, a message sent twice."""

from pathlib import Path

import msgspec
import pytest

from deploy.containers import environment
from deploy.containers.docker import Docker
from services.simulated_carrier.ledger import LedgerEntry
from tests.compose.project import Project
from tests.compose.run import require_once

IN_ORDER = {"kafka": 143, "postgres": 0, "resolver": 0, "carrier": 0}
ENGINE = """\
#!/bin/sh
case $1 in
ps) echo ids ;;
inspect) cat {directory}/containers ;;
exec) cat {directory}/ledger ;;
esac
"""


def project(directory: Path, **exit_codes: int) -> Project:
    """One of an engine whose containers have ended with these codes."""
    ended = (f"id-of-{service} {service} 0 0 healthy {code}\n" for service, code in (IN_ORDER | exit_codes).items())
    (directory / "containers").write_text("".join(ended))
    engine = directory / "docker"
    engine.write_text(ENGINE.format(directory=directory))
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


def submit(text: str, command_status: int = 0) -> LedgerEntry:
    return LedgerEntry(
        sequence=1,
        received_at=0,
        accepted=command_status == 0,
        command_status=command_status,
        provider_id="1" if command_status == 0 else None,
        session=1,
        system_id="postrider",
        source="POSTRIDER",
        destination="254711000001",
        esm_class=0,
        data_coding=0,
        registered_delivery=1,
        short_message=text.encode().hex(),
        concatenation=None,
        user_message_reference=None,
    )


@pytest.mark.parametrize(
    ("carried", "wrong"),
    [
        ([submit("one"), submit("two", 0x58), submit("two")], None),
        ([submit("one"), submit("two"), submit("two")], "{'two': 1}"),
        ([submit("one"), submit("two", 0x58)], "{'two': -1}"),
        ([submit("one"), submit("two"), submit("three")], "{'three': 1}"),
    ],
    ids=["one of each", "a double", "a loss", "a stranger"],
)
def test_what_the_carrier_had_is_one_of_each_that_was_sent(
    tmp_path: Path, carried: list[LedgerEntry], wrong: str | None
) -> None:
    (tmp_path / "ledger").write_bytes(msgspec.json.Encoder().encode_lines(carried))
    found = project(tmp_path).carried()
    if wrong is None:
        require_once(["one", "two"], found)
        return
    with pytest.raises(AssertionError, match=wrong):
        require_once(["one", "two"], found)
