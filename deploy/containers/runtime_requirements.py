"""requirements-runtime.lock: the part of requirements.lock that the services need, for the image. Without arguments it writes the file.

Run it with the virtual environment's Python after every change of requirements.lock; a test says when it was forgotten.
"""

import importlib.metadata
import re
import tomllib
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy import REPOSITORY

WHOLE_LOCK = REPOSITORY / "requirements.lock"
RUNTIME_LOCK = REPOSITORY / "requirements-runtime.lock"
IMAGE = {"python_version": "3.11", "python_full_version": "3.11.2", "sys_platform": "linux", "platform_system": "Linux"}
HEADER = (
    "# The part of requirements.lock that the services need, written by deploy/containers/runtime_requirements.py.\n"
)


def runtime_lock() -> str:
    """What the file should hold. Raises `KeyError` for a needed package that requirements.lock does not have."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    entries = lock_entries(WHOLE_LOCK.read_text())
    return HEADER + "".join(entries[name] for name in sorted(needed(project["dependencies"])))


def lock_entries(lock: str) -> dict[str, str]:
    """The lock's text by package: a line with the version, and the lines with its hashes."""
    entries = re.findall(r"^(?:\S.*\n)(?:[ \t].*\n)*", lock, flags=re.MULTILINE)
    return {canonicalize_name(re.split(r"[=\[ ;]", entry)[0]): entry for entry in entries if not entry.startswith("#")}


def needed(requirements: Iterable[str]) -> set[str]:
    """The packages that these need on the image's Python, themselves and all that they draw in."""
    found: set[str] = set()
    open_requirements = [(Requirement(text), "") for text in requirements]
    seen: set[tuple[str, str]] = set()
    while open_requirements:
        requirement, extra = open_requirements.pop()
        if requirement.marker and not requirement.marker.evaluate({**IMAGE, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found.add(name)
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                open_requirements += [(Requirement(text), wanted) for text in _requires(name)]
    return found


def _requires(name: str) -> list[str]:
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:  # only the image's older Python needs it
        return []


if __name__ == "__main__":
    RUNTIME_LOCK.write_text(runtime_lock())
