"""The running local stack's environment, for commands that work on it or, by variables of their own, on another: never on half of each.

`python -m deploy.running_stack MODULE [ARGUMENT…]` runs one that needs PostgreSQL and Kafka.
"""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy import REPOSITORY

ENVIRONMENT_FILE = REPOSITORY / ".run" / "env"


def environment(given: Mapping[str, str], *needed: str, file: Path = ENVIRONMENT_FILE) -> dict[str, str]:
    """What is given; where nothing that is needed is, with what the running stack says of itself. Ends the process if something lacks."""
    found = {name: value for name, value in given.items() if value}
    if elsewhere := [name for name in needed if name in found]:
        if missing := [name for name in needed if name not in found]:
            raise SystemExit(
                f"{' and '.join(elsewhere)} may name another system than the one here: set {' and '.join(missing)} too"
            )
        return found
    if not file.exists():
        raise SystemExit(f"Postrider is not running here: start it with `make run`, or set {' and '.join(needed)}")
    told = (shlex.split(line.removeprefix("export "))[0].split("=", 1) for line in file.read_text().splitlines())
    return dict(told) | found


def write(environment: Mapping[str, str], file: Path) -> None:
    """What the running stack says of itself, for `environment` and for `.` in a shell. Only its owner may read it."""
    partial = file.with_name(f"{file.name}.partial")  # whoever reads the file while it is written anew finds all of it
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()))
    partial.replace(file)


def main() -> None:
    command = [sys.executable, "-m", *sys.argv[1:]]
    os.execve(sys.executable, command, environment(os.environ, "POSTGRES_DSN", "KAFKA_BOOTSTRAP_SERVERS"))  # noqa: S606


if __name__ == "__main__":
    main()
