"""Keeps processes running: starts them and waits until they are ready, again when they die, and stops them in reverse order."""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from deploy.local.processes import Child, StartError, describe_exit
from deploy.local.server import LocalServer

READY_SECONDS = 120.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1
FIRST_DELAY, LONGEST_DELAY = 0.5, 15.0
LIVED_LONG_ENOUGH = 30.0  # seconds, after which the next death is not counted to the same run of failures

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """What to run. `ready_url` answers 200 when the process is ready, else says what is missing. `nice` is as for `Child.spawn`."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready_url: str
    directory: Path
    nice: int = 0


class SupervisedProcess:
    """A process that is to run. When it dies it is started again, after a delay that doubles while it keeps dying."""

    def __init__(self, spec: ProcessSpec, logs: Path, say: Say) -> None:
        self.spec = spec
        self.log = logs / f"{spec.name}.log"
        self.deaths: list[int] = []  # an exit code each (negative: by that signal), stops not counted
        self._say = say
        self._child: Child | None = None
        self._spawning = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._died = asyncio.Condition()

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child and self._child.running else None

    async def start(self, *, once: Mapping[str, str] | None = None) -> None:
        """Start it and wait until it is ready; `StartError` if it ends or takes too long.

        `once` is added to its environment for this start only, not when it is started again after a death.
        """
        self._stopping.clear()
        child = await self._spawn(once or {})
        try:
            await self._wait_until_ready(child, READY_SECONDS)
        except BaseException:
            await child.kill()
            raise
        self._keeper = asyncio.create_task(self._keep_running(child), name=f"keep {self.spec.name} running")

    async def restart(self, *, once: Mapping[str, str] | None = None) -> None:
        """Stop it in order and start it again, without waiting until it is ready. `once` is as for `start`."""
        await self.stop()
        self._stopping.clear()
        child = await self._spawn(once or {})
        self._keeper = asyncio.create_task(self._keep_running(child), name=f"keep {self.spec.name} running")

    async def stop(self, *, budget: float = STOP_SECONDS) -> None:
        """SIGTERM, then SIGKILL after `budget` seconds. It stays stopped until `start`. What did not stop in order is said."""
        self._stopping.set()
        async with self._spawning:
            child = self._child
        if child:
            was_running = child.running  # else it had died, which has been said
            if not await child.stop(budget=budget):
                self._say(f"{self.spec.name} did not stop within {budget:.0f} s and was killed; see {self.log}")
            elif was_running and child.exit_code not in (0, -signal.SIGTERM):  # the signal ends one that just begins
                self._say(f"{self.spec.name} did not stop in order ({describe_exit(child.exit_code)}); see {self.log}")
        if self._keeper:
            await self._keeper
            self._keeper = None

    async def kill(self) -> None:
        """SIGKILL; it is started again like after any death. Returns when the death has been noticed."""
        if self._child and self._child.running:
            deaths = len(self.deaths)
            await self._child.kill()
            await self.wait_for_death(deaths + 1)

    def suspend(self) -> None:
        """SIGSTOP: it stands still, and knows nothing of it."""
        if self._child:
            self._child.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self._child:
            self._child.send_signal(signal.SIGCONT)

    async def wait_for_death(self, count: int, *, within: float = READY_SECONDS) -> None:
        """Return when it has died `count` times in all; `TimeoutError` after `within` seconds."""
        async with asyncio.timeout(within), self._died:
            await self._died.wait_for(lambda: len(self.deaths) >= count)

    async def wait_until_ready(self, *, within: float = READY_SECONDS) -> None:
        """Return when it answers that it is ready, started again meanwhile or not; `TimeoutError` otherwise."""
        async with asyncio.timeout(within):
            while True:
                if self.pid is not None and await missing(self.spec.ready_url) is None:
                    return
                await asyncio.sleep(POLL_SECONDS)

    async def _spawn(self, once: Mapping[str, str]) -> Child:
        spec = self.spec
        environment = {**spec.environment, **once}
        self._child = await Child.spawn(
            spec.command, log=self.log, environment=environment, directory=spec.directory, nice=spec.nice
        )
        return self._child

    async def _wait_until_ready(self, child: Child, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while child.running:
            reason = await missing(self.spec.ready_url)
            if reason is None:
                return
            if time.monotonic() > deadline:
                tail = child.log_tail()
                raise StartError(f"{self.spec.name} was not ready after {seconds:.0f} s ({reason}):\n{tail}")
            await asyncio.sleep(POLL_SECONDS)
        ended = describe_exit(child.exit_code)
        raise StartError(f"{self.spec.name} ended while starting ({ended}):\n{child.log_tail()}")

    async def _keep_running(self, child: Child) -> None:
        delay = FIRST_DELAY
        while True:
            started = time.monotonic()
            code = await child.wait()
            if self._stopping.is_set():
                return
            async with self._died:
                self.deaths.append(code)
                self._died.notify_all()
            delay = FIRST_DELAY if time.monotonic() - started > LIVED_LONG_ENOUGH else delay
            self._say(
                f"{self.spec.name} died ({describe_exit(code)}); starting it again in {delay:g} s; see {self.log}"
            )
            if await self._stopped_within(delay):
                return
            delay = min(delay * 2, LONGEST_DELAY)
            async with self._spawning:
                if self._stopping.is_set():
                    return
                child = await self._spawn({})
            await self._say_when_ready(child)

    async def _say_when_ready(self, child: Child) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while child.running and not self._stopping.is_set():
                    if await missing(self.spec.ready_url) is None:
                        self._say(f"{self.spec.name} is ready again")
                        return
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            self._say(f"{self.spec.name} is not ready {READY_SECONDS:.0f} s after it was started again; see {self.log}")

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True


class Supervisor:
    """The processes of one stack, in the order in which they were started."""

    def __init__(self, logs: Path, say: Say) -> None:
        self._logs = logs
        self._say = say
        self._processes: dict[str, SupervisedProcess] = {}

    @property
    def processes(self) -> tuple[SupervisedProcess, ...]:
        return tuple(self._processes.values())

    def process(self, name: str) -> SupervisedProcess:
        """Raises `KeyError` naming those that there are."""
        if name not in self._processes:
            raise KeyError(f"no process {name!r}; there are {', '.join(self._processes)}")
        return self._processes[name]

    async def start(self, spec: ProcessSpec, *, once: Mapping[str, str] | None = None) -> SupervisedProcess:
        """Start one more process and wait until it is ready; several such calls may run at once."""
        process = SupervisedProcess(spec, self._logs, self._say)
        self._processes[spec.name] = process
        try:
            await process.start(once=once)
        except BaseException:
            del self._processes[spec.name]
            raise
        return process

    async def stop(self, name: str, *, budget: float = STOP_SECONDS) -> None:
        """Stop one process for good."""
        await self.process(name).stop(budget=budget)
        del self._processes[name]

    async def stop_all(self, *, budget: float = STOP_SECONDS) -> None:
        """Stop all, the last one started first, each with its own `budget` in seconds."""
        for name in reversed(tuple(self._processes)):
            started = time.monotonic()
            await self.stop(name, budget=budget)
            self._say(f"{name} stopped ({time.monotonic() - started:.1f} s)")


async def keep_server_running(server: LocalServer, say: Say) -> None:
    """Start a server again whenever it dies, until this is cancelled."""
    delay = FIRST_DELAY
    while True:
        started = time.monotonic()
        code = await server.wait()
        delay = FIRST_DELAY if time.monotonic() - started > LIVED_LONG_ENOUGH else delay
        say(f"{server.NAME} died ({describe_exit(code)}); starting it again in {delay:g} s")
        await asyncio.sleep(delay)
        delay = min(delay * 2, LONGEST_DELAY)
        try:
            await server.start()
            say(f"{server.NAME} is ready again")
        except StartError as error:
            say(str(error))


async def missing(url: str) -> str | None:
    """None if `url` answers 200; else what it says is missing, or why it can't be asked."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session,
            session.get(url) as response,
        ):
            return None if response.status == 200 else f"{response.status} {await response.text()}"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return str(error) or type(error).__name__
