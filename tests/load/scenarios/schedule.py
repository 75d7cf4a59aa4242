"""What a scheduled message costs when it is due, with few and with many others that wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tests.load.arithmetic import percentile, spread
from tests.load.ground import Ground
from tests.load.load_process import load_processes
from tests.load.post_load import Load
from tests.load.processes import cpu_between, pids_of, usage
from tests.load.progress import reached
from tests.load.report import Page, Table, megabytes
from tests.load.system import System
from tests.load.workload import Workload

FAR = timedelta(days=300)
LEAST_LEAD_SECONDS = 15.0
PER_SECOND = 1_000
"""At which accepting and storing what will be due is surely done with."""


async def measure(ground: Ground) -> Page:
    plan, waiting = ground.plan, 0
    async with ground.own() as place:
        system = place.system
        rows: list[tuple[str, ...]] = []
        for count in plan.waiting:
            await _let_wait(system, count - waiting, plan.bulk)
            waiting = count
            rounds: list[_Round] = []
            for _ in range(plan.runs):
                rounds.append(await _fall_due(system, plan.due))
                ground.say(
                    f"{count:,} waiting: {rounds[-1].cpu:.0f} µs per due message, p99 {rounds[-1].late[2]:.1f} s late"
                )
            rows.append((f"{count:,}", *_in_words(rounds)))
    head = (
        "waiting",
        "CPU per due message (µs)",
        "of that, the scheduler",
        "and PostgreSQL",
        "due → carrier p50",
        "p95",
        "p99 s",
        "scheduler MB",
    )
    return Page(
        title="Scheduled messages",
        words=f"{plan.due:,} messages due at one moment, beside others that wait far longer. From that moment to the last `delivered`.",
        tables=[Table(title=f"Median (min–max) of {plan.runs} run(s)", head=head, rows=rows)],
        facts=["all messages were accepted before they were due: nothing is sent while it is measured"],
        system=place.conditions,
    )


async def _let_wait(system: System, messages: int, bulk: int) -> None:
    """So many more that are due in a far future; returns when the outbox shows them as scheduled."""
    work = Workload(messages=messages, bulk=bulk, scheduled_at=_rfc3339(datetime.now(UTC) + FAR))
    before = await _scheduled(system)
    await _post(system.load(work))
    await reached(lambda: _scheduled(system), before + messages, "scheduled")


class _Round(NamedTuple):
    """What one moment's messages cost: µs of CPU each, of all processes and of two; seconds late at p50, p95 and p99; bytes."""

    cpu: float
    scheduler: float
    postgres: float
    late: tuple[float, ...]
    memory: int


async def _fall_due(system: System, messages: int) -> _Round:
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=LEAST_LEAD_SECONDS + messages // PER_SECOND)
    load, last_entry = system.load(Workload(messages=messages, scheduled_at=_rfc3339(due))), system.carrier.last()
    began = time.time()
    await _post(load)
    assert datetime.now(UTC) < due, "accepting them took longer than until they were due"
    await asyncio.sleep(max(0.0, due.timestamp() - time.time() - 1))
    before, statuses = usage(pids_of(system.stack)), await system.statuses()
    await system.all_delivered(began, messages, statuses)
    after = usage(pids_of(system.stack))
    cpu = {name: seconds / messages * 1e6 for name, seconds in cpu_between(before, after).items()}
    late = sorted(at - due.timestamp() for at in system.arrivals([load], last_entry).values())
    assert late[0] >= 0, "a message left before it was due"
    quantiles = tuple(percentile(late, percent) for percent in (50, 95, 99))
    return _Round(sum(cpu.values()), cpu["scheduler"], cpu["PostgreSQL"], quantiles, after["scheduler"].resident_bytes)


def _in_words(rounds: Sequence[_Round]) -> tuple[str, ...]:
    own = (spread([getattr(one, name) for one in rounds], ".0f") for name in ("cpu", "scheduler", "postgres"))
    late = (spread([one.late[place] for one in rounds], ".1f") for place in range(3))
    return (*own, *late, megabytes(max(one.memory for one in rounds)))


async def _post(load: Load) -> None:
    async with load_processes([load]) as [process]:
        result = await process.run()
    assert result.statuses == {202: load.work.requests}, f"not all was accepted: {result}"


async def _scheduled(system: System) -> int:
    return int(await system.database.fetchval("SELECT count(*) FROM outbox.messages WHERE status = 'scheduled'"))


def _rfc3339(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
