"""Tables of runs at full speed, which several scenarios show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from tests.load.arithmetic import percentile, spread
from tests.load.report import Table, megabytes
from tests.load.runs import Run

LOOP = "a loop of Python, for the machine's pace (ms)"
LEAST_BYTES = 50
"""Per message: tables that grow by less are not named."""


def in_a_line(run: Run) -> str:
    return (
        f"{run.messages:,} messages: {run.accepted_per_second:,.0f}/s accepted, {run.per_second:,.0f}/s end to end, "
        f"{run.cpu_us:.0f} µs CPU each, {run.elsewhere:.1f} cores used elsewhere, a loop took {run.loop * 1000:.0f} ms"
    )


def rates(runs: Sequence[Run], answer: str = "POST → 202") -> Table:
    rows = [
        ("accepted per second", spread([run.accepted_per_second for run in runs], ",.0f")),
        ("end to end per second", spread([run.per_second for run in runs], ",.0f")),
        (f"{answer}, p50 (ms)", spread([percentile(run.to_answer(), 50) * 1000 for run in runs], ".1f")),
        (f"{answer}, p99 (ms)", spread([percentile(run.to_answer(), 99) * 1000 for run in runs], ".1f")),
        ("CPU per message, all processes (µs)", spread([run.cpu_us for run in runs], ".0f")),
        ("cores used elsewhere meanwhile", spread([run.elsewhere for run in runs], ".2f")),
        (LOOP, spread([run.loop * 1000 for run in runs], ".0f")),
    ]
    many = f"median (min–max) of {len(runs)} runs of {runs[0].messages:,} messages"
    return Table(title=f"As fast as it goes: {many}", head=("", ""), rows=rows)


def processes(runs: Sequence[Run]) -> Table:
    memory = runs[-1].memory
    by_cost = sorted(runs[0].cpu, key=lambda name: -median(run.cpu[name] for run in runs))
    rows = [
        (
            name,
            spread([run.cpu[name] / run.messages * 1e6 for run in runs], ".1f"),
            megabytes(memory[name]) if name in memory else "",
        )
        for name in by_cost
    ]
    words = "CPU includes each process's children, ended ones too; PostgreSQL's memory is that of its largest process."
    return Table(title="By process", words=words, head=("process", "CPU per message (µs)", "memory (MB)"), rows=rows)


def side_by_side(title: str, tables: Mapping[str, Table], words: str = "") -> Table:
    """The first figure of each row, a column for each of these tables; the rows in the order of the first."""
    figures = [{row[0]: row[1] for row in table.rows} for table in tables.values()]
    rows = [(name, *(column[name] for column in figures)) for name in figures[0]]
    return Table(title=title, words=words, head=("", *tables), rows=rows)


def disk(runs: Sequence[Run]) -> Table:
    """Bytes per message that stay, and those that pass."""

    def per_message(values: Sequence[int]) -> str:
        return spread([value / run.messages for value, run in zip(values, runs, strict=True)], ",.0f")

    names = sorted({name for run in runs for name in run.growth.tables})
    tables = {name: [run.growth.tables.get(name, 0) for run in runs] for name in names}
    shown = {name: sizes for name, sizes in tables.items() if median(sizes) / runs[0].messages >= LEAST_BYTES}
    rows = [
        *((f"`{name}`", per_message(sizes)) for name, sizes in sorted(shown.items(), key=lambda item: -sum(item[1]))),
        ("all tables", per_message([sum(run.growth.tables.values()) for run in runs])),
        ("PostgreSQL's log (WAL)", per_message([run.growth.wal for run in runs])),
        ("Kafka's logs (kept for 14 days)", per_message([run.growth.kafka for run in runs])),
    ]
    words = "Tables with their indexes, before vacuum; `outbox.events` is the journal, `outbox.messages` its fold."
    return Table(title="Bytes on disk per message", words=words, head=("", "bytes"), rows=rows)
