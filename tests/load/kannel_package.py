"""Debian's package of Kannel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable

from deploy.containers.engine import services_stay_off
from deploy.local.prepare import SetupError, run

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
"""The daemons are where only root's search path leads."""


def install(say: Callable[[str], None]) -> None:
    """Where it is missing. Raises `SetupError` naming the package if that can't be done."""
    if shutil.which("bearerbox", path=_PATH):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError("Missing: Kannel. On Debian or Ubuntu: sudo apt-get install -y --no-install-recommends kannel")
    say("apt-get install: Kannel")
    run("apt-get", "update", "-qq")
    with services_stay_off():
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "kannel")


def version() -> str:
    words = subprocess.run((program("bearerbox"), "--version"), capture_output=True, text=True, check=False)
    found = re.search(r"version `(.+?)'", words.stdout + words.stderr)
    assert found, words
    return found[1]


def program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    assert found, f"Kannel's {name} is missing"
    return found
