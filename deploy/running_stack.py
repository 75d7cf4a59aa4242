"""The running local stack's environment, for commands that work on it or, by variables of their own, on another.

`python -m deploy.running_stack MODULE [ARGUMENT…]` runs one that needs PostgreSQL and Kafka.
"""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

ENVIRONMENT_FILE = Path(__file__).resolve().parents[1] / ".run" / "env"


def environment(given: Mapping[str, str], *needed: str, file: Path = ENVIRONMENT_FILE) -> dict[str, str]:
    """What is given, and beside it what the running stack says of itself. Ends the process where neither has what is needed."""
    lines = file.read_text().splitlines() if file.exists() else []
    told = dict(shlex.split(line.removeprefix("export "))[0].split("=", 1) for line in lines)
    found = told | {name: value for name, value in given.items() if value}
    if missing := [name for name in needed if name not in found]:
        raise SystemExit(f"Postrider is not running here: start it with `make run`, or set {' and '.join(missing)}")
    return found


def main() -> None:
    command = [sys.executable, "-m", *sys.argv[1:]]
    os.execve(sys.executable, command, environment(os.environ, "POSTGRES_DSN", "KAFKA_BOOTSTRAP_SERVERS"))  # noqa: S606


if __name__ == "__main__":
    main()
