"""The API gateway alone: what comes behind stands still until everything is accepted."""

from __future__ import annotations

from tests.load import tables
from tests.load.arithmetic import percentile, spread
from tests.load.ground import Ground
from tests.load.report import Page, Table, load_generator
from tests.load.runs import Run
from tests.load.workload import Workload

AT_WORK = ("api-gateway", "carrier")


async def measure(ground: Ground) -> Page:
    place, plan = await ground.shared(), ground.plan
    system = place.system
    stopped = [process.spec.name for process in system.stack.processes if process.spec.name not in AT_WORK]
    kinds = {
        "single POSTs": Workload(messages=plan.messages),
        f"bulk of {plan.bulk:,}": Workload(messages=plan.messages, bulk=plan.bulk),
    }
    found: list[Table] = []
    generators: list[str] = []
    for name, work in kinds.items():
        runs: list[Run] = []
        for _ in range(plan.runs):
            runs.append(await system.send(system.load(work), stopped=stopped))
            ground.say(f"{name}: {tables.in_a_line(runs[-1])}")
        generators.append(load_generator(runs[0].loads))
        rows = [
            ("accepted per second", spread([run.accepted_per_second for run in runs], ",.0f")),
            ("POST → 202, p50 (ms)", spread([percentile(run.to_answer(), 50) * 1000 for run in runs], ".1f")),
            ("POST → 202, p99 (ms)", spread([percentile(run.to_answer(), 99) * 1000 for run in runs], ".1f")),
            ("CPU of the API gateway (µs per message)", spread([_api(run) for run in runs], ".1f")),
            (tables.LOOP, spread([run.loop * 1000 for run in runs], ".0f")),
        ]
        found.append(Table(title=f"{name}: median (min–max) of {plan.runs} runs", head=("", ""), rows=rows))
    return Page(
        title="Accept alone",
        words="From the first request to the last answer, which comes when Kafka has the message.",
        tables=found,
        facts=[
            f"{plan.messages:,} messages a run; {', '.join(stopped)} stood still meanwhile, and delivered it all afterwards",
            *generators,
        ],
        system=place.conditions,
    )


def _api(run: Run) -> float:
    return run.cpu["api-gateway"] / run.messages * 1e6
