"""One system that fills: whether a message costs more when there are a million."""

from __future__ import annotations

from collections.abc import Sequence

from tests.load.arithmetic import spread
from tests.load.ground import WARM_UP_PIECE, Ground
from tests.load.post_load import Load
from tests.load.report import Page, Table, load_generator, megabytes
from tests.load.runs import Run
from tests.load.tables import LOOP, in_a_line
from tests.load.workload import Workload


async def measure(ground: Ground) -> Page:
    plan, held = ground.plan, 0
    figures: list[tuple[str, ...]] = []
    sent: Sequence[Load] = ()
    memory: dict[str, list[str]] = {}
    async with ground.own(warm=False) as place:
        system = place.system

        async def send(messages: int) -> Run:
            nonlocal held
            held += messages
            run = await system.send(system.load(Workload(messages=messages)))
            ground.say(f"{held:,} held; {in_a_line(run)}")
            return run

        for size in plan.growth:
            measured = min(plan.messages, size // (plan.runs + 1))
            while (left := size - held - measured * plan.runs) > 0:
                await send(min(left, WARM_UP_PIECE))
            runs = [await send(measured) for _ in range(plan.runs)]
            figures.append(
                (
                    f"{held:,}",
                    f"{measured:,}",
                    spread([run.cpu_us for run in runs], ".0f"),
                    spread([run.per_second for run in runs], ",.0f"),
                    spread([run.loop * 1000 for run in runs], ".0f"),
                )
            )
            sent = runs[-1].loads
            for name, resident in runs[-1].memory.items():
                memory.setdefault(name, []).append(megabytes(resident))
    sizes = [row[0] for row in figures]
    return Page(
        title="Growth",
        words="Single POSTs, end to end, into one system that keeps everything.",
        tables=[
            Table(
                title=f"Median (min–max) of the last {plan.runs} runs before each size was reached",
                head=("messages held", "messages per run", "CPU per message (µs)", "end to end per second", LOOP),
                rows=figures,
            ),
            Table(
                title="Memory in MB",
                words="Resident at the end; PostgreSQL's is that of its largest process, shared buffers included.",
                head=("process", *(f"at {size}" for size in sizes)),
                rows=[(name, *values) for name, values in memory.items()],
            ),
        ],
        facts=["the first size is cold: what it sends is itself the warm-up", load_generator(sent)],
        system=place.conditions,
    )
