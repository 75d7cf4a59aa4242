"""What is killed, where and when; and the witness of what each killed dispatcher left without an outcome."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import asyncpg

from deploy.local.stack import Stack
from deploy.local.supervisor import SupervisedProcess
from tests.faults.auditor import AttemptKey
from tests.faults.records import attempt_of

DISPATCHER = "dispatcher-demo"
POINTS: Mapping[str, Sequence[str]] = {
    "projection": ("projection.receive-apply", "projection.apply-commit"),
    "receipts": ("receipts.receive-store", "receipts.store-publish", "receipts.publish-commit"),
    DISPATCHER: (
        "dispatcher.claim-write",
        "dispatcher.write-response",
        "dispatcher.response-store",
        "dispatcher.store-publish",
        "dispatcher.publish-commit",
    ),
    "scheduler": ("scheduler.receive-store", "scheduler.claim-publish", "scheduler.publish-mark"),
    "resolver": ("resolver.receive-decide", "resolver.decide-publish", "resolver.publish-commit"),
    "api-gateway": ("api_gateway.reserve-publish", "api_gateway.publish-mark", "api_gateway.mark-answer"),
}
"""The crash points of each service, upstream: while one is away, messages still reach the next to be killed."""
ELSEWHERE = frozenset(
    {
        "api_gateway.bulk-publish",
        "inbound.receive-store",
        "inbound.store-commit",
        "projection.rebuild-swap",
        "receipts.decide-publish",
        "receipts.publish-forget",
        "scheduler.store-cancel",
        "scheduler.cancel-publish",
        "scheduler.publish-commit",
    }
)
"""The crash points that nothing here passes: the tests of their services kill there."""
RECOVERY_SECONDS = 60.0
LOOK_SECONDS = 0.25

_OPEN = """
SELECT message_id, cycle, leg, part, try, owner, outcome, provider_id FROM dispatch.attempts WHERE outcome IS NULL
"""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill of one process: at the `passing`-th passing of a crash point, or by SIGKILL after `pause` seconds."""

    process: str
    point: str | None
    passing: int = 1
    pause: float = 0

    def __str__(self) -> str:
        return f"{self.process} at {self.point}:{self.passing}" if self.point else f"{self.process} by SIGKILL"


def schedule(replicas: int, chance: random.Random) -> list[Kill]:
    """Every crash point of every service in turn, replicas taking turns too, with a random SIGKILL of each process between."""
    kills: list[Kill] = []
    for number in range(max(map(len, POINTS.values()))):
        for service, points in POINTS.items():
            if number < len(points):
                process = _replica(service, number % replicas)
                kills.append(Kill(process, points[number], passing=chance.randint(1, 3)))
    victims = [
        _replica(service, number) for service in POINTS for number in range(replicas if service == DISPATCHER else 1)
    ]
    for victim in victims:
        # Not beside another kill of the same process: that would only wait for it to be up again.
        places = [n for n in range(1, len(kills)) if victim not in (kills[n - 1].process, kills[n].process)]
        kills.insert(chance.choice(places), Kill(victim, None, pause=chance.uniform(0.1, 1.0)))
    return kills


def _replica(service: str, number: int) -> str:
    return f"{service}-{number + 1}" if service == DISPATCHER else service


class Witness:
    """Looks at the attempts without outcome all the time, and remembers which of them a killed instance left."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._seen: defaultdict[UUID, dict[AttemptKey, float]] = defaultdict(dict)
        self._deaths: dict[UUID, float] = {}
        self._clock = asyncio.get_running_loop().time

    def killed(self, dispatcher: SupervisedProcess) -> None:
        """This process has just been killed."""
        if (instance := _last_instance(dispatcher.log)) is not None:
            self._deaths.setdefault(instance, self._clock())

    @property
    def left_behind(self) -> dict[UUID, frozenset[AttemptKey]]:
        """By killed instance: the attempts that had no outcome when it was dead already."""
        return {
            instance: frozenset(key for key, seen in self._seen[instance].items() if seen >= death)
            for instance, death in self._deaths.items()
        }

    async def watch(self) -> None:
        connection = await asyncpg.connect(self._dsn)
        try:
            while True:
                now = self._clock()
                for attempt in map(attempt_of, await connection.fetch(_OPEN)):
                    self._seen[attempt.owner][attempt.key] = now
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await connection.close()


@asynccontextmanager
async def witness(dsn: str) -> AsyncIterator[Witness]:
    found = Witness(dsn)
    watching = asyncio.create_task(found.watch())
    try:
        yield found
        assert not watching.done(), f"the witness saw nothing: {watching.exception()!r}"
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def carry_out(kill: Kill, stack: Stack, seen: Witness) -> None:
    """Kill, and return when the death is noticed; the supervisor starts the process again. AssertionError if it did not die there."""
    process = stack.process(kill.process)
    await process.wait_until_ready(within=RECOVERY_SECONDS)
    deaths = len(process.deaths)
    if kill.point is None:
        await asyncio.sleep(kill.pause)
        await process.kill()
    else:
        await process.restart(once={"CRASH_AT": f"{kill.point}:{kill.passing}"})
        try:
            await process.wait_for_death(deaths + 1, within=RECOVERY_SECONDS)
        except TimeoutError:
            raise AssertionError(f"{kill}: it passed there no {kill.passing} times") from None
    if kill.process.startswith(DISPATCHER):
        seen.killed(process)
    assert process.deaths[deaths:] == [-signal.SIGKILL], f"{kill}: it died of {process.deaths[deaths:]}"


def _last_instance(log: Path) -> UUID | None:
    """The instance that wrote this log last."""
    lines = log.read_text(errors="replace").splitlines()
    return next((UUID(said["instance"]) for said in _registrations(reversed(lines))), None)


def _registrations(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    for line in lines:
        if '"instance registered"' in line:
            yield json.loads(line)
