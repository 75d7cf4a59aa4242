"""What Kafka and PostgreSQL have in common as servers on this machine: a child process each, with its data in a directory."""

import asyncio
import signal
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from deploy.local.ports import free_port
from deploy.local.processes import Child, StartError, describe_exit

READY_SECONDS = 120.0
POLL_SECONDS = 0.05


class LocalServer(ABC):
    """A server with its data in `directory`. A port that is not given is found free and kept across restarts."""

    NAME: ClassVar[str]
    STOP_SIGNAL: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, directory: Path, port: int | None, log: Path) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.log = log
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child and self._child.running else None

    async def start(self) -> None:
        """Start the server (made first, if `directory` is new) and wait until it answers; `StartError` otherwise."""
        self._child = await self._spawn()
        await self._wait_until_ready(self._child)

    async def stop(self, *, budget: float = 20) -> None:
        """Stop it cleanly; kill it after `budget` seconds."""
        if self._child:
            await self._child.stop(budget=budget, with_signal=self.STOP_SIGNAL)
            self._child = None

    async def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._child:
            await self._child.kill()
            self._child = None

    async def wait(self) -> int:
        """Return its exit code when it ends."""
        return await self._child.wait() if self._child else 0

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @abstractmethod
    async def _spawn(self) -> Child: ...

    @abstractmethod
    async def _answers(self) -> bool: ...

    async def _wait_until_ready(self, child: Child) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while child.running:
            if await self._answers():
                return
            if time.monotonic() > deadline:
                await child.kill()
                raise StartError(f"{self.NAME} was not ready after {READY_SECONDS:.0f} s:\n{child.log_tail()}")
            await asyncio.sleep(POLL_SECONDS)
        raise StartError(f"{self.NAME} ended while starting ({describe_exit(child.exit_code)}):\n{child.log_tail()}")
