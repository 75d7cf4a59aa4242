"""The dispatcher alone against the carrier: its topic is full when it starts, and nobody else works."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from deploy.local.supervisor import SupervisedProcess
from tests.load.arithmetic import spread
from tests.load.dispatches import publish_dispatches
from tests.load.ground import Ground
from tests.load.processes import Usage, busy_seconds, cpu_between, loop_seconds, pids_of, usage
from tests.load.report import Page, Table
from tests.load.system import System
from tests.load.tables import LOOP

GATEWAY = "demo"
FIRST, LAST = 0.2, 0.9
"""Shares of the messages between which it is measured: start and end are left out."""
POLL_SECONDS = 0.02
STALLED_SECONDS = 60


@dataclass(frozen=True, slots=True)
class _Moment:
    at: float
    done: int
    used: dict[str, Usage]
    busy: float


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Per second, and µs per message by process."""

    per_second: float
    cpu: dict[str, float]
    elsewhere: float
    loop: float
    """Seconds."""


async def measure(ground: Ground) -> Page:
    plan = ground.plan
    async with ground.own() as place:
        system, name = place.system, f"dispatcher-{GATEWAY}-1"
        dispatcher = system.stack.process(name)
        for other in system.stack.processes:
            if other.spec.name not in (name, "carrier"):
                await other.stop()
        stretches: list[_Stretch] = []
        for _ in range(plan.runs):
            await dispatcher.stop()
            await publish_dispatches(system.stack.kafka, GATEWAY, system.take_numbers(plan.dispatches))
            stretches.append(await _run(system, dispatcher, plan.dispatches))
            each = {name: round(cost, 1) for name, cost in stretches[-1].cpu.items()}
            ground.say(f"dispatcher: {stretches[-1].per_second:,.0f}/s, µs per message {each}")
    names = [name, "carrier", "PostgreSQL", "Kafka"]
    rows = [
        ("submits per second, with their receipts", spread([s.per_second for s in stretches], ",.0f")),
        ("submits per second and core of the dispatcher", spread([1e6 / s.cpu[name] for s in stretches], ",.0f")),
        *((f"{each}, CPU per message (µs)", spread([s.cpu[each] for s in stretches], ".1f")) for each in names),
        ("cores used elsewhere meanwhile", spread([s.elsewhere for s in stretches], ".2f")),
        (LOOP, spread([s.loop * 1000 for s in stretches], ".0f")),
    ]
    return Page(
        title="The dispatcher alone",
        words=f"{plan.dispatches:,} messages lie in its topic when it starts; every other service is stopped. Measured from "
        f"{FIRST:.0%} to {LAST:.0%} of the receipts answered, each after Kafka has it.",
        tables=[Table(title=f"Median (min–max) of {plan.runs} runs", head=("", ""), rows=rows)],
        system=place.conditions,
    )


async def _run(system: System, dispatcher: SupervisedProcess, messages: int) -> _Stretch:
    before, loop = await _answered(system), loop_seconds()
    starting = asyncio.create_task(dispatcher.start())
    moments: list[_Moment] = []
    deadline = time.monotonic() + STALLED_SECONDS
    for share in (FIRST, LAST, 1.0):
        while (done := await _answered(system) - before) < share * messages:
            assert time.monotonic() < deadline, f"{done} of {messages} reported, and no more"
            await asyncio.sleep(POLL_SECONDS)
        deadline = time.monotonic() + STALLED_SECONDS
        moments.append(_Moment(time.monotonic(), done, usage(pids_of(system.stack)), busy_seconds()))
    await starting
    first, last, _ = moments
    return _stretch(first, last, (loop + loop_seconds()) / 2)


def _stretch(first: _Moment, last: _Moment, loop: float) -> _Stretch:
    seconds, messages = last.at - first.at, last.done - first.done
    cpu = cpu_between(first.used, last.used)
    elsewhere = max(0.0, last.busy - first.busy - sum(cpu.values())) / seconds
    return _Stretch(messages / seconds, {name: cost / messages * 1e6 for name, cost in cpu.items()}, elsewhere, loop)


async def _answered(system: System) -> int:
    """Receipts that the dispatcher has answered so far."""
    return int((await system.carrier.statistics())["deliveries_acknowledged"])
