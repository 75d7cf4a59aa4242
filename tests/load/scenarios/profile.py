"""Where each microsecond goes: a sampling profiler in each service, and PostgreSQL's own statistics."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict

import asyncpg

from deploy.local import postgres
from deploy.local.supervisor import SupervisedProcess
from tests.load import tables
from tests.load.ground import Ground
from tests.load.report import Page, Table
from tests.load.system import System
from tests.load.workload import Workload
from tests.waiting import until

PROFILER = Path(__file__).parents[1] / "profiler"
FUNCTIONS = 40
STATEMENTS = 30
WRITTEN_WITHIN_SECONDS = 20
STATISTICS = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "all"}
_TOP_STATEMENTS = """
SELECT calls, rows, total_exec_time * 1000 AS microseconds, wal_bytes, query
  FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
 ORDER BY total_exec_time DESC LIMIT $1
"""


class Samples(TypedDict):
    """Counts of samples by `file:function`: those in the function itself, and those in it or in what it called."""

    samples: int
    own: dict[str, int]
    cumulative: dict[str, int]


async def measure(ground: Ground) -> dict[str, Page]:
    """A page for each process, by name, and one over `all`."""
    plan = ground.plan
    with TemporaryDirectory(prefix="postrider-profile-") as name, _statement_statistics():
        directory = Path(name)
        environment = {"PYTHONPATH": str(PROFILER), "PROFILE_DIRECTORY": name}
        async with ground.own(extra={"*": environment}) as place:
            system = place.system
            await system.database.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            await system.database.execute("SELECT pg_stat_statements_reset()")
            _tell(system, signal.SIGUSR1)
            run = await system.send(system.load(Workload(messages=plan.messages)))
            ground.say(tables.in_a_line(run))
            _tell(system, signal.SIGUSR2)
            samples = {p.spec.name: await _samples(directory, p) for p in system.stack.processes}
            statements = await _statements(system.database, run.messages)
    words = f"While {run.messages:,} single POSTs went from end to end ({tables.in_a_line(run)})."
    note = "profiled: the sampler itself takes some percent; what a call into C takes is its caller's"
    facts = {"facts": [note], "system": place.conditions}
    pages = {
        process: Page(
            title=f"Profile: {process}",
            words=words,
            tables=functions(found, run.cpu[process] / run.messages * 1e6),
            **facts,
        )
        for process, found in samples.items()
    }
    pages["postgresql"] = Page(title="Profile: PostgreSQL", words=words, tables=[statements], **facts)
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


async def _statements(database: asyncpg.Connection, messages: int) -> Table:
    rows = await database.fetch(_TOP_STATEMENTS, STATEMENTS)
    return Table(
        title="Statements",
        words="Time that they ran, waiting included; those inside functions are counted twice, by themselves and within the call.",
        head=("µs per message", "calls", "rows", "WAL bytes per message", "statement"),
        rows=[
            (
                f"{row['microseconds'] / messages:.2f}",
                f"{row['calls']:,}",
                f"{row['rows']:,}",
                f"{row['wal_bytes'] / messages:.0f}",
                f"`{' '.join(row['query'].split())[:200]}`".replace("|", "\\|"),
            )
            for row in rows
        ],
    )


def _tell(system: System, number: signal.Signals) -> None:
    for process in system.stack.processes:
        if process.pid is not None:
            os.kill(process.pid, number)


async def _samples(directory: Path, process: SupervisedProcess) -> Samples:
    file = directory / f"{process.pid}.json"
    await until(file.exists, f"{process.spec.name} writes its profile", within=WRITTEN_WITHIN_SECONDS)
    return json.loads(file.read_text())


@contextmanager
def _statement_statistics() -> Generator[None]:
    """PostgreSQL servers that start within count their statements."""
    before = dict(postgres.SETTINGS)
    postgres.SETTINGS.update(STATISTICS)
    try:
        yield
    finally:
        postgres.SETTINGS.clear()
        postgres.SETTINGS.update(before)
