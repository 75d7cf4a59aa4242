"""A service as the process that it is: started again and again, on the same ground."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import aiohttp

from deploy import REPOSITORY
from deploy.local.ports import free_port
from deploy.local.processes import Child
from tests.waiting import WITHIN_SECONDS

TOKEN = "a token of the services"


@dataclass
class ServiceProgram:
    """One replica. A subclass names the service, and what it is told beside the usual."""

    SERVICE: ClassVar[str]
    MODULE: ClassVar[str | None] = None
    """What is run if it is not the service as it is."""
    CONFIGURATION: ClassVar[str | None] = None
    ENVIRONMENT: ClassVar[dict[str, str]] = {}

    directory: Path
    kafka: str
    dsn: str
    port: int = field(default_factory=free_port)
    child: Child | None = None

    async def start(self, crash_at: str = "", ready: bool = True) -> Child:
        self.directory.mkdir(exist_ok=True)
        environment = os.environ | {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "POSTGRES_DSN": self.dsn,
            "OPS_PORT": str(self.port),
            "INTERNAL_TOKEN": TOKEN,
            "CRASH_AT": crash_at,
            f"{self.SERVICE.upper()}_KEEP_DAYS": "20000",  # the tests' messages are of a day long gone
            **self.ENVIRONMENT,
        }
        if self.CONFIGURATION is not None:
            file = self.directory / "postrider.yaml"
            file.write_text(self.CONFIGURATION)
            environment["POSTRIDER_CONFIG"] = str(file)
        command = (sys.executable, "-m", self.MODULE or f"services.{self.SERVICE}.main")
        log = self.directory / f"{self.SERVICE}.log"
        self.child = await Child.spawn(command, log=log, environment=environment, directory=REPOSITORY)
        if ready:
            await self._ready(self.child)
        return self.child

    async def _ready(self, child: Child) -> None:
        async with asyncio.timeout(WITHIN_SECONDS), aiohttp.ClientSession() as session:
            while child.running:
                try:
                    async with session.get(f"http://127.0.0.1:{self.port}/health/ready") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
        raise AssertionError(f"the service did not start:\n{child.log_tail()}")

    async def stop(self) -> int | None:
        """SIGTERM; answers the exit code."""
        if self.child is None:
            return None
        await self.child.stop(budget=30)
        return self.child.exit_code
