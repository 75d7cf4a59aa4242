"""One compose project of the repository's docker-compose.yml: up, looked at, hurt, and taken down."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import yaml

from deploy import REPOSITORY
from deploy.containers import environment
from deploy.containers.docker import Docker, DockerError
from deploy.local.ports import HOST, free_port
from services.simulated_carrier.ledger import LedgerEntry
from tests.services.simulated_carrier.texts import join_texts

HEALTHY_WITHIN_SECONDS = 180.0
STOPPED_WITHIN_SECONDS = 180.0
# Exit codes of containers that were told to stop: a JVM's says by which signal; all others' is 0.
IN_ORDER = {"kafka": 143}


@dataclass(frozen=True, kw_only=True)
class Container:
    id: str
    service: str
    pid: int
    restarts: int
    health: str
    exit_code: int


class Project:
    def __init__(self, docker: Docker, environment_file: Path, name: str) -> None:
        self._docker = docker
        self._file = environment_file
        self._name = name
        values = environment.read(environment_file)
        self.url = f"http://{HOST}:{values['POSTRIDER_PORT']}"
        self.api_key = values["POSTRIDER_API_KEY"]
        self._image = f"postrider-services:{values['POSTRIDER_VERSION']}"

    @classmethod
    def prepare(cls, docker: Docker, directory: Path, version: str) -> "Project":
        """A project with secrets and a port of its own."""
        name = f"postrider-test-{os.getpid()}"
        file = directory / "env"
        environment.write(
            file, {"POSTRIDER_PORT": str(free_port()), "POSTRIDER_VERSION": version, "COMPOSE_PROJECT_NAME": name}
        )
        # To compose the environment is worth more than the file, so ours must say the same.
        settled = {**docker.environment, **environment.read(file)}
        return cls(replace(docker, environment=settled), file, name)

    def up(self) -> None:
        self._compose("up", "--detach", "--no-build")

    def stop(self) -> None:
        """Stop it all; `AssertionError` if a container had to be killed (137), or gave up draining (70)."""
        self._compose("stop", timeout=STOPPED_WITHIN_SECONDS)
        others = {c.service: c.exit_code for c in self.containers() if c.exit_code != IN_ORDER.get(c.service, 0)}
        assert not others, f"not stopped in order, by exit code: {others}"

    def down(self) -> None:
        self._compose("down", "--volumes", "--timeout", "20")
        left = self._docker.run("ps", "--all", "--quiet", "--filter", self._filter).split()
        left += self._docker.run("volume", "ls", "--quiet", "--filter", self._filter).split()
        assert not left, f"left behind: {left}"

    def command(self, *arguments: str) -> str:
        """What an operator's command says, run in a container of its own."""
        return self._compose("run", "--rm", "-T", "projection", *arguments)

    def carried(self) -> list[str]:
        """The texts that the simulated carrier has accepted, a double twice."""
        ledger = "cat /var/lib/postrider/carrier/ledger-*.jsonl"
        lines = self._docker.run("exec", self.container("carrier").id, "sh", "-c", ledger).splitlines()
        return [text.text for text in join_texts(msgspec.json.decode(line, type=LedgerEntry) for line in lines)]

    def logs(self) -> str:
        return self._compose("logs", "--no-color", "--tail=15")

    def containers(self) -> list[Container]:
        """Every container of the project, running or not."""
        ids = self._docker.run("ps", "--all", "--quiet", "--filter", self._filter).split()
        if not ids:
            return []
        template = (
            '{{.Id}} {{index .Config.Labels "com.docker.compose.service"}} {{.State.Pid}} {{.RestartCount}} '
            "{{.State.Health.Status}} {{.State.ExitCode}}"
        )
        found: list[Container] = []
        for line in self._docker.run("inspect", "--format", template, *ids).splitlines():
            id, service, pid, restarts, health, code = line.split()
            found.append(
                Container(
                    id=id, service=service, pid=int(pid), restarts=int(restarts), health=health, exit_code=int(code)
                )
            )
        return found

    def container(self, service: str) -> Container:
        return next(c for c in self.containers() if c.service == service)

    def wait_until_healthy(self) -> None:
        declared = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]

        def missing() -> str:
            health = {c.service: c.health for c in self.containers()}
            return ", ".join(sorted(s for s in declared if health.get(s) != "healthy"))

        _wait("unhealthy", missing, HEALTHY_WITHIN_SECONDS)

    def crash(self, service: str) -> Container:
        """SIGKILL to the service's process, as a crash; what was running.

        `docker kill` would count as a wish that it be stopped, and nothing starts it again. The signal comes from a container
        that sees the processes of the engine's machine, wherever that is.
        """
        victim = self.container(service)
        self._docker.run(
            "run",
            "--rm",
            "--pid=host",
            "--network=none",
            "--user=0",
            "--cap-drop=ALL",
            "--cap-add=KILL",
            "--entrypoint=python",
            self._image,
            "-c",
            f"import os; os.kill({victim.pid}, 9)",
        )
        return victim

    def wait_until_back(self, before: Container, seconds: float) -> None:
        """Until the engine has started the service again and it is healthy."""

        def missing() -> str:
            now = self.container(before.service)
            back = now.restarts > before.restarts and now.pid not in (0, before.pid) and now.health == "healthy"
            return "" if back else f"{now}"

        _wait(f"{before.service} is not back", missing, seconds)

    def require_contained(self) -> None:
        """The running containers really are confined: `AssertionError` for one that is root or may write to its image."""
        for container in self.containers():
            user = self._docker.run("exec", container.id, "id", "-u").strip()
            assert user != "0", f"{container.service} runs as root"
            try:
                self._docker.run("exec", container.id, "touch", "/var/tmp/written")
            except DockerError as error:
                assert "Read-only file system" in str(error), f"{container.service}: {error}"
            else:
                raise AssertionError(f"{container.service} can write to its root file system")

    @property
    def _filter(self) -> str:
        return f"label=com.docker.compose.project={self._name}"

    def _compose(self, *arguments: str, timeout: float = 300) -> str:
        return self._docker.compose(
            f"--project-name={self._name}", f"--env-file={self._file}", "--profile=demo", *arguments, timeout=timeout
        )


def _wait(what: str, missing: Callable[[], str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while words := missing():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} after {seconds:.0f} s: {words}")
        time.sleep(0.5)
