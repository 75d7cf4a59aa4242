"""Where each microsecond goes: a sampling profiler in each service, and PostgreSQL's own statistics of statements."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict

from deploy.local.supervisor import SupervisedProcess
from tests.load import statements, tables
from tests.load.ground import Ground
from tests.load.report import Page, Table, load_generator
from tests.load.system import System
from tests.load.workload import Workload
from tests.waiting import until

PROFILER = Path(__file__).parents[1] / "profiler"
FUNCTIONS = 40
WRITTEN_WITHIN_SECONDS = 20


class Samples(TypedDict):
    """Counts of samples by `file:function`: those in the function itself, and those in it or in what it called."""

    samples: int
    own: dict[str, int]
    cumulative: dict[str, int]


async def measure(ground: Ground) -> dict[str, Page]:
    """A page for each process, by name, one for PostgreSQL where it can count statements, and one over `all`."""
    plan = ground.plan
    with TemporaryDirectory(prefix="postrider-profile-") as name, statements.counted() as counted:
        if not counted:
            ground.say(f"no page of PostgreSQL: {statements.LIBRARY} is missing from its server here")
        directory = Path(name)
        environment = {"PYTHONPATH": str(PROFILER), "PROFILE_DIRECTORY": name}
        async with ground.own(extra={"*": environment}) as place:
            system = place.system
            if counted:
                await statements.begin(system.database)
            _tell(system, signal.SIGUSR1)
            run = await system.send(system.load(Workload(messages=plan.messages)))
            ground.say(tables.in_a_line(run))
            _tell(system, signal.SIGUSR2)
            samples = {p.spec.name: await _samples(directory, p) for p in system.stack.processes}
            of_postgres = [await statements.most_expensive(system.database, run.messages)] if counted else []
    words = f"While {run.messages:,} single POSTs went from end to end ({tables.in_a_line(run)})."
    note = "profiled: the sampler itself takes some percent; what a call into C takes is its caller's"
    facts = {"facts": [note, load_generator(run.loads)], "system": place.conditions}
    pages = {
        process: Page(
            title=f"Profile: {process}",
            words=words,
            tables=functions(found, run.cpu[process] / run.messages * 1e6),
            **facts,
        )
        for process, found in samples.items()
    }
    if of_postgres:
        pages["postgresql"] = Page(title="Profile: PostgreSQL", words=words, tables=of_postgres, **facts)
    pages["all"] = Page(title="Profile", words=words, tables=[tables.processes([run])], **facts)
    return pages


def functions(found: Samples, cpu_us: float) -> list[Table]:
    """By what is spent within, and by what is a function's own. `cpu_us`: what the process spends per message."""
    titles = {"cumulative": "With what it calls", "own": "By itself"}
    counts: Mapping[str, dict[str, int]] = {"cumulative": found["cumulative"], "own": found["own"]}
    samples = max(1, found["samples"])
    return [
        Table(
            title=titles[kind],
            words=f"{cpu_us:.1f} µs CPU per message, {found['samples']:,} samples." if kind == "cumulative" else "",
            head=("function", "share", "µs per message"),
            rows=[
                (f"`{name}`", f"{count / samples:.1%}", f"{count / samples * cpu_us:.2f}")
                for name, count in sorted(by_name.items(), key=lambda item: -item[1])[:FUNCTIONS]
            ],
        )
        for kind, by_name in counts.items()
    ]


def _tell(system: System, number: signal.Signals) -> None:
    for process in system.stack.processes:
        if process.pid is not None:
            os.kill(process.pid, number)


async def _samples(directory: Path, process: SupervisedProcess) -> Samples:
    file = directory / f"{process.pid}.json"
    await until(file.exists, f"{process.spec.name} writes its profile", within=WRITTEN_WITHIN_SECONDS)
    return json.loads(file.read_text())
