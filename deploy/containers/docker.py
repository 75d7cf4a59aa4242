"""The `docker` and compose commands, aimed at one engine. Standard library only."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deploy import REPOSITORY


class DockerError(Exception):
    """A command failed; the text carries the end of its output."""


@dataclass(frozen=True, kw_only=True)
class Docker:
    """How to speak to one engine: which programs, and what their environment is told."""

    program: str
    compose_program: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    def run(self, *arguments: str, timeout: float = 120) -> str:
        """`docker arguments…`; its output. Raises `DockerError`."""
        return command((self.program, *arguments), self.environment, timeout=timeout)

    def compose(self, *arguments: str, timeout: float = 300) -> str:
        return command((*self.compose_program, *arguments), self.environment, timeout=timeout)


def command(words: Sequence[str], environment: Mapping[str, str], *, timeout: float) -> str:
    """Run from the repository's root with these variables beside our own; what it printed. Raises `DockerError`."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            check=False, cwd=REPOSITORY, env={**os.environ, **environment}, timeout=timeout,
        )  # fmt: skip
    except OSError as error:
        raise DockerError(f"{words[0]} could not be started: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise DockerError(f"{' '.join(words)} was not done after {timeout:.0f} s") from error
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-25:])
        raise DockerError(f"{' '.join(words)} ended with {done.returncode}:\n{tail}")
    return done.stdout


def client(environment: Mapping[str, str]) -> Docker | None:
    """The programs of this machine that can build with secrets (BuildKit) and compose; None if there are none."""
    programs = [found for name in ("docker", "/usr/bin/docker") if (found := shutil.which(name))]
    program = next((p for p in programs if _prints((p, "build", "--help"), "--secret")), None)
    if program is None:
        return None
    for compose in ((program, "compose"), ("docker-compose",)):
        if _prints((*compose, "version"), "ompose"):
            return Docker(program=program, compose_program=compose, environment={"DOCKER_BUILDKIT": "1", **environment})
    return None


def _prints(words: Sequence[str], expected: str) -> bool:
    try:
        return expected in command(words, {"DOCKER_BUILDKIT": "1"}, timeout=30)
    except DockerError:
        return False
