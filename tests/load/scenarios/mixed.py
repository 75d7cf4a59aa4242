"""Everything at once: single POSTs with Idempotency-Keys, bulk, and urgent messages that must overtake both."""

from __future__ import annotations

from statistics import median

from tests.load import tables
from tests.load.arithmetic import milliseconds, spread
from tests.load.ground import Ground
from tests.load.report import Page, Table, load_generator
from tests.load.workload import Workload

URGENT_PER_SECOND = 100
URGENT_SECONDS = 3


async def measure(ground: Ground) -> Page:
    place, plan = await ground.shared(), ground.plan
    system, half = place.system, plan.messages // 2
    single, bulk = Workload(messages=half), Workload(messages=half, bulk=plan.bulk)
    urgent = Workload(messages=URGENT_PER_SECOND * URGENT_SECONDS, priority="high")
    runs = [
        await system.send(
            system.load(urgent, rate=URGENT_PER_SECOND),
            system.load(single, keys=f"mixed-{run}-"),
            system.load(bulk),
        )
        for run in range(plan.runs)
    ]
    rows = [
        ("end to end per second", spread([run.per_second for run in runs], ",.0f")),
        ("CPU per message, all processes (µs)", spread([run.cpu_us for run in runs], ".0f")),
        ("cores used elsewhere meanwhile", spread([run.elsewhere for run in runs], ".2f")),
    ]
    waits = [milliseconds(run.to_carrier()) for run in runs]
    overtaking = [(f"{run + 1}", *wait) for run, wait in enumerate(waits)]
    middle = [f"{median(float(wait[column]) for wait in waits):.1f}" for column in range(3)]
    return Page(
        title="Mixed, end to end",
        words=f"At once: {half:,} single POSTs with Idempotency-Keys and {half:,} messages in bulk requests of {plan.bulk:,}, as fast as "
        f"answers come, and {URGENT_PER_SECOND} a second of priority `high` for {URGENT_SECONDS} s.",
        tables=[
            Table(title=f"All together: median (min–max) of {len(runs)} runs", head=("", ""), rows=rows),
            Table(
                title="`high` under this load: POST → carrier",
                head=("run", "p50 ms", "p95 ms", "p99 ms"),
                rows=[*overtaking, ("median", *middle)],
            ),
            tables.processes(runs),
        ],
        facts=[load_generator(runs[0].loads)],
        system=place.conditions,
    )
