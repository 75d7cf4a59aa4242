"""How long a message takes to the carrier at a fixed rate, and what that rate costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from tests.load import tables
from tests.load.arithmetic import milliseconds
from tests.load.ground import Ground
from tests.load.post_load import Load
from tests.load.report import Page, Table, load_generator
from tests.load.runs import Run
from tests.load.workload import Workload

PRIORITIES: tuple[Literal["normal", "high"], ...] = ("normal", "high")


async def measure(ground: Ground) -> Page:
    place, plan = await ground.shared(), ground.plan
    system, messages = place.system, int(plan.rate * plan.seconds)
    rows: list[tuple[str, ...]] = []
    sent: Sequence[Load] = ()
    by_process: list[Table] = []
    for priority in PRIORITIES:
        runs: list[Run] = []
        for number in range(1, plan.runs + 1):
            run = await system.send(system.load(Workload(messages=messages, priority=priority), rate=plan.rate))
            ground.say(f"{priority}: {tables.in_a_line(run)}")
            runs.append(run)
            sent = run.loads
            used = f"{run.cores:.2f}", f"{run.elsewhere:.2f}"
            rows.append((f"`{priority}` {number}, POST → 202", *milliseconds(run.to_answer()), *used))
            rows.append((f"`{priority}` {number}, POST → carrier", *milliseconds(run.to_carrier()), *used))
        by_process.append(replace(tables.processes(runs), title=f"By process, `{priority}`"))
    head = ("", "p50 ms", "p95 ms", "p99 ms", "cores busy", "cores used elsewhere")
    return Page(
        title=f"Latency at {plan.rate:g} messages per second",
        words="Counted from when a message was due, so that a stall can't hide; the carrier's clock stops when it reads the submit.",
        tables=[Table(title=f"{plan.runs} run(s) of {plan.seconds:g} s each", head=head, rows=rows), *by_process],
        facts=[
            load_generator(sent),
            "cores busy: CPU of all processes, the load generator and the carrier included, over the run's time",
        ],
        system=place.conditions,
    )
