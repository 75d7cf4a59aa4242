"""A container engine for a test: the one that runs here, or a private one that is gone afterwards.

The private one is Debian's `dockerd` with data, socket and pid file of its own. It has no default bridge and leaves the firewall and
IP forwarding alone: builds use the machine's network, containers reach each other within a compose network, and published ports go
through Docker's own proxy.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.containers import docker
from deploy.containers.docker import Docker, DockerError
from deploy.local.prepare import apt_knows, run

START_SECONDS = 60
STOP_SECONDS = 90
POLICY = Path("/usr/sbin/policy-rc.d")  # asked by packages whether their services may start
KEY = Path("/etc/docker/key.json")  # older engines make it, wherever their data are
_PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]


class NoEngineError(Exception):
    """This machine can't run containers; the text says why."""


@contextmanager
def engine(say: Say) -> Generator[Docker]:
    """An engine that answers. Raises `NoEngineError`, or `SetupError` if a package can't be installed."""
    given = docker.client({})
    if given and _answers(given):
        say("the container engine that runs here")
        yield given
        return
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NoEngineError("no container engine answers, and only root on Linux can start one")
    if not shutil.which("dockerd") or given is None:
        if not shutil.which("apt-get"):
            raise NoEngineError("no container engine answers, and without apt-get none can be installed")
        say("apt-get install: a container engine")
        _install()
    with _private_engine(say) as own:
        yield own


def _install() -> None:
    run("apt-get", "update", "-qq")
    compose = next((name for name in ("docker-compose-v2", "docker-compose") if apt_knows(name)), "docker-compose")
    also = [name for name in ("docker-cli", "docker-buildx") if apt_knows(name)]  # parts of docker.io in older releases
    with services_stay_off():
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "docker.io", compose, *also)


@contextmanager
def services_stay_off() -> Generator[None]:
    """Installed packages start no service meanwhile. A machine with a policy of its own keeps that."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


@contextmanager
def _private_engine(say: Say) -> Generator[Docker]:
    directory = Path(tempfile.mkdtemp(prefix="postrider-engine-"))
    address = f"unix://{directory}/socket"
    configuration = directory / "daemon.json"
    configuration.write_text("{}")
    had_key = KEY.exists()
    with (directory / "log").open("wb") as log:
        daemon = subprocess.Popen(
            (
                "dockerd",
                f"--config-file={configuration}",  # not the machine's, which may contradict what follows
                f"--data-root={directory}/data",
                f"--exec-root={directory}/exec",
                f"--pidfile={directory}/pid",
                f"--host={address}",
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
                "--ip-masq=false",
            ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone: we take the containers down first
            preexec_fn=_stop_with_parent,
        )
    try:
        own = docker.client({"DOCKER_HOST": address})
        if own is None:
            raise NoEngineError("docker or docker-compose is not here, or can't build with BuildKit")
        started = time.monotonic()
        while not _answers(own):
            if daemon.poll() is not None or time.monotonic() - started > START_SECONDS:
                raise NoEngineError(f"dockerd does not start: {_last_words(directory / 'log')}")
            time.sleep(0.3)
        driver = own.run("info", "--format", "{{.ServerVersion}}, {{.Driver}}").strip()
        say(f"a private container engine ({driver})")
        yield own
    finally:
        _stop(daemon)
        if not had_key:
            KEY.unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)


def _stop_with_parent() -> None:
    """In the child: the kernel asks it to stop if we die without doing so (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _stop(daemon: "subprocess.Popen[bytes]") -> None:
    daemon.terminate()
    try:
        daemon.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)  # its containerd too
        daemon.wait()


def _answers(engine_here: Docker) -> bool:
    try:
        return bool(engine_here.run("info", "--format", "{{.ServerVersion}}", timeout=20).strip())
    except DockerError:
        return False


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
