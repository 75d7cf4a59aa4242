"""`make run` as a newcomer meets it: in a checkout of its own, by what it prints."""

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deploy import REPOSITORY
from deploy.local.ports import Ports, PortTakenError, free_port, require_free
from tests.end_to_end.client import Api
from tests.waiting import until

FIRST_SMS = re.compile(r"SMS (\S+) to client 1:")
PROGRAMS = [
    "kafka.Kafka",
    "bin/postgres",
    *(f"services.{main.parent.name}.main" for main in REPOSITORY.glob("services/*/main.py")),
]
"""What runs then, by words of its command line: every service, the simulated carrier too."""
ADDRESSES_SHOWN = "Ctrl-C stops everything."


class Run:
    """`python -m deploy.local.run` in a checkout, with what it has printed so far."""

    def __init__(self, process: asyncio.subprocess.Process, printed: Path) -> None:
        self.process = process
        self._printed = printed

    @property
    def printed(self) -> str:
        return self._printed.read_text()

    async def shows(self, words: str) -> None:
        def shown() -> bool:
            assert self.process.returncode is None, self.printed
            return words in self.printed

        try:
            await until(shown, f"{words!r} to be printed", within=90)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.printed}") from None

    def descendants(self) -> set[int]:
        """The processes that it started, and theirs, whatever they are called."""
        children: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parent = stat.read_text().rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(stat.parent.name))
        found: set[int] = set()
        left = [self.process.pid]
        while left:
            mine = children.get(left.pop(), [])
            found.update(mine)
            left += mine
        return found

    async def interrupt(self) -> None:
        """Ctrl-C; returns when it has ended, as it should."""
        started = self.descendants()
        commands = "\n".join(map(_command, started))
        assert [name for name in PROGRAMS if name not in commands] == []
        self.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(self.process.wait(), 60) == 0, self.printed
        assert "Stopped." in self.printed
        assert "did not stop" not in self.printed, self.printed
        assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == [], "processes are left"


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):  # one of PostgreSQL's own may have ended since
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


@pytest.fixture
def checkout(server_directory: Path) -> Iterator[Path]:
    """What git would bring, and what `make setup` has fetched; compiled already, which only saves time."""
    directory = server_directory / "a checkout"
    for name in ("deploy", "libs", "services"):
        shutil.copytree(REPOSITORY / name, directory / name)
    (directory / ".cache").symlink_to(REPOSITORY / ".cache")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def environment() -> dict[str, str]:
    """Ports of its own, as `POSTRIDER_PORT=… make run` has them."""
    ports = {name: str(free_port()) for name in Ports.DEFAULTS} | {Ports.OPS_BASE: str(free_ports_in_a_row(20))}
    return {**{k: v for k, v in os.environ.items() if k != "CONFIG"}, **ports, "PYTHONPATH": ""}


def free_ports_in_a_row(number: int) -> int:
    """The first of them, between those of `free_port` and those that the kernel gives to outgoing connections."""
    bases = range(30_000, 32_000, number)
    for base in random.sample(bases, len(bases)):
        with contextlib.suppress(PortTakenError):
            for port in range(base, base + number):
                require_free(port, "the test")
            return base
    raise AssertionError("no free ports")


@contextlib.asynccontextmanager
async def make_run(checkout: Path, environment: dict[str, str]) -> AsyncIterator[Run]:
    printed = checkout / "printed"
    with printed.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "deploy.local.run", cwd=checkout, env=environment, stdout=output, stderr=output
        )
    try:
        yield Run(process, printed)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 60)
            except TimeoutError:
                process.kill()


async def shell(command: str, checkout: Path) -> str:
    """What a command prints that is pasted into a fresh shell."""
    clean = {"PATH": os.environ["PATH"], "HOME": str(checkout)}
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, cwd=checkout, env=clean, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


@pytest.mark.timeout(300)
async def test_make_run_shows_the_first_sms_and_a_second_one_finds_it_again(
    checkout: Path, environment: dict[str, str]
) -> None:
    async with make_run(checkout, environment) as run:
        await run.shows(ADDRESSES_SHOWN)
        found = FIRST_SMS.search(run.printed)
        assert found, run.printed
        first = found[1]
        told = run.printed[found.end() :].partition(" s from the request")[0].splitlines()
        way = [line.split()[1:3] for line in told if re.match(r"  \d\d:\d\d:\d\d\.\d{3}  ", line)]
        assert way == [
            ["accepted", "sms.requested"],
            ["queued", "sms.dispatch.demo"],
            ["submitted", "sms.status"],
            ["delivered", "sms.status"],
        ]
        await _try_what_is_printed(run, checkout, environment)
        scaled = await shell(f"{sys.executable} -m deploy.local.control scale demo 2", checkout)
        health = (await _environment(checkout))["DISPATCHER_DEMO_2_HEALTH"]
        assert scaled.splitlines()[:2] == ["gateway: demo", "replicas: 2"]
        assert scaled.splitlines()[3:] == [f"dispatcher-demo-2: {health}"]
        assert "dispatcher-demo-2 " in await shell(f"{sys.executable} -m deploy.local.control status", checkout)
        await run.interrupt()

    async with make_run(checkout, environment) as run:
        await run.shows("Postrider is up after")
        sourced = await _environment(checkout)
        async with Api(sourced["POSTRIDER_URL"], sourced["POSTRIDER_API_KEY"]) as api:
            assert (await api.read(first))["status"] == "delivered"
        await run.shows(ADDRESSES_SHOWN)
        await run.interrupt()


async def _try_what_is_printed(run: Run, checkout: Path, environment: dict[str, str]) -> None:
    """The variables can be sourced, the addresses are right, and the curl line works as pasted."""
    sourced = await _environment(checkout)
    assert sourced["POSTRIDER_URL"].endswith(f":{environment['POSTRIDER_PORT']}")
    shown = ("POSTRIDER_URL", "KAFKA_BOOTSTRAP_SERVERS", "CARRIER_SMPP", "CARRIER_URL")
    assert all(sourced[name] in run.printed for name in shown)
    assert sourced["POSTRIDER_API_KEY"] not in run.printed
    answer = await shell(run.printed.partition("Send one yourself:")[2].partition(ADDRESSES_SHOWN)[0], checkout)
    accepted = json.loads(answer)
    assert accepted["status"] == "accepted"
    async with Api(sourced["POSTRIDER_URL"], sourced["POSTRIDER_API_KEY"]) as api:

        async def delivered() -> bool:
            return (await api.read(accepted["id"]))["status"] == "delivered"

        await until(delivered, "the pasted SMS to be delivered", within=30)


async def _environment(checkout: Path) -> dict[str, str]:
    lines = (await shell(". .run/env && env", checkout)).splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
