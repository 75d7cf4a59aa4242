"""Makes `.env` from `.env.example`: every value that is empty there becomes a random one. A `.env` that is there is left alone.

Standard library only.
"""

import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy import REPOSITORY

EXAMPLE = REPOSITORY / ".env.example"
ENVIRONMENT = REPOSITORY / ".env"


def filled(example: str, given: Mapping[str, str] | None = None) -> str:
    """The example's text with `given` values put in, and a random one wherever none is left."""
    chosen = given or {}

    def line(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        return f"{name}={chosen.get(name, value) or secrets.token_hex(24)}"

    return re.sub(r"^([A-Z_]+)=(.*)$", line, example, flags=re.MULTILINE)


def write(path: Path, given: Mapping[str, str] | None = None) -> None:
    """Write the file for its owner's eyes alone. Raises `FileExistsError`."""
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(filled(EXAMPLE.read_text(), given))


def read(path: Path) -> dict[str, str]:
    """The file's variables."""
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", path.read_text(), flags=re.MULTILINE))


def main() -> None:
    try:
        write(ENVIRONMENT)
    except FileExistsError:
        sys.exit(f"{ENVIRONMENT} is there already")


if __name__ == "__main__":
    main()
