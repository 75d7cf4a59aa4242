"""What scenarios stand on: a warm system that they share, or one of their own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local.run import DEFAULT_CONFIG
from tests.load import report
from tests.load.plan import Plan
from tests.load.system import System, running_system
from tests.load.tables import in_a_line
from tests.load.workload import Workload

WARM_UP_PIECE = 50_000


@dataclass(frozen=True, slots=True)
class Place:
    """A system, and its conditions for the page."""

    system: System
    conditions: list[str]


class Ground:
    """One system runs at a time: the machine is all theirs. Close it in the end."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.say = say
        self._shared: Place | None = None
        self._closing = AsyncExitStack()

    async def shared(self) -> Place:
        """The system of the default configuration, warmed up by the first who asks for it."""
        if self._shared is None:
            system = await self._closing.enter_async_context(running_system(say=self.say))
            self._shared = Place(system, await report.conditions(system, await self.warm_up(system)))
        return self._shared

    @asynccontextmanager
    async def own(
        self,
        config: Path = DEFAULT_CONFIG,
        extra: Mapping[str, Mapping[str, str]] | None = None,
        *,
        warm: bool = True,
    ) -> AsyncGenerator[Place]:
        """A system of this configuration for one scenario, which ends the shared one."""
        await self.close()
        async with running_system(config, extra, self.say) as system:
            warm_up = await self.warm_up(system) if warm else "none"
            yield Place(system, await report.conditions(system, warm_up))

    async def warm_up(self, system: System) -> str:
        """What was sent, in words."""
        left = self.plan.warm_up
        if not left:
            return "none"
        while left:
            piece = min(left, WARM_UP_PIECE)
            run = await system.send(system.load(Workload(messages=piece)))
            self.say(f"warm-up: {in_a_line(run)}")
            left -= piece
        return f"{self.plan.warm_up:,} single POSTs"

    async def close(self) -> None:
        self._shared = None
        await self._closing.aclose()
        self._closing = AsyncExitStack()
