"""One, two, three dispatchers of one gateway."""

from __future__ import annotations

from collections.abc import Sequence

from tests.end_to_end.client import bound
from tests.load.arithmetic import spread
from tests.load.ground import Ground
from tests.load.post_load import Load
from tests.load.report import Page, Table, load_generator
from tests.load.runs import Run
from tests.load.tables import LOOP, in_a_line
from tests.load.workload import Workload
from tests.waiting import until

GATEWAY = "demo"
SETTLED_SECONDS = 60


async def measure(ground: Ground) -> Page:
    place, plan = await ground.shared(), ground.plan
    system = place.system
    rows: list[tuple[str, ...]] = []
    sent: Sequence[Load] = ()
    try:
        for replicas in plan.replicas:
            await system.stack.scale(GATEWAY, replicas)

            async def all_bound(replicas: int = replicas) -> bool:
                return len(await bound(system.stack.dispatchers(GATEWAY))) == replicas

            await until(all_bound, f"{replicas} dispatchers bound", within=SETTLED_SECONDS)
            await system.send(system.load(Workload(messages=plan.messages // 4)))  # partitions settle
            runs: list[Run] = []
            for _ in range(plan.runs):
                runs.append(await system.send(system.load(Workload(messages=plan.messages))))
                ground.say(f"{replicas} dispatchers: {in_a_line(runs[-1])}")
            sent = runs[-1].loads
            dispatching = [sum(cpu for name, cpu in run.cpu.items() if "dispatcher" in name) for run in runs]
            rows.append(
                (
                    str(replicas),
                    spread([run.per_second for run in runs], ",.0f"),
                    spread([run.cpu_us for run in runs], ".0f"),
                    spread([cpu / plan.messages * 1e6 for cpu in dispatching], ".0f"),
                    spread([run.loop * 1000 for run in runs], ".0f"),
                )
            )
    finally:
        await system.stack.scale(GATEWAY, 1)
    head = ("dispatchers", "end to end per second", "CPU per message (µs)", "of that, dispatchers", LOOP)
    return Page(
        title="Replicas of the dispatcher",
        words="Single POSTs, end to end. They share the machine's cores with everything else, so what more of them cost shows rather "
        "than what they win.",
        tables=[
            Table(title=f"Median (min–max) of {plan.runs} runs of {plan.messages:,} messages", head=head, rows=rows)
        ],
        facts=["as many processes of the dispatcher as each row says", load_generator(sent)],
        system=place.conditions,
    )
