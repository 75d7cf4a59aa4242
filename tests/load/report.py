"""What a scenario found, as a page of Markdown with its conditions."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from deploy import REPOSITORY
from deploy.local.prepare import KAFKA_VERSION
from deploy.local.topology import NICE
from tests.load.post_load import Load
from tests.load.system import RECEIPT_DELAY_MS, System
from tests.load.workload import CLIENTS

CODE = ("deploy", "libs", "services", "tests", "requirements.lock")
"""What changes a speed; not the pages, which the run itself writes."""
MESSAGES = (
    f"texts of 60 characters, GSM 7-bit, one segment; {CLIENTS:,} clients in turn; a receipt for each, {RECEIPT_DELAY_MS} ms after it was "
    "accepted"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`words` stand above it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: str = ""

    def __str__(self) -> str:
        lines = (self.head, ("---",) * len(self.head), *self.rows)
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join(filter(None, (f"## {self.title}", self.words, table)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`facts` are the conditions that are the scenario's own."""

    title: str
    words: str
    tables: Sequence[Table]
    facts: Sequence[str] = field(default_factory=list[str])
    system: Sequence[str] = field(default_factory=list[str])
    """those of the system, from `conditions`"""
    machine: Sequence[str] = field(default_factory=list[str])
    """those of the machine, from `machine`; whoever runs the scenario adds them"""

    def __str__(self) -> str:
        facts = "\n".join(f"- {fact}" for fact in (*self.machine, *self.system, *self.facts))
        return "\n\n".join((f"# {self.title}", self.words, *map(str, self.tables), f"## Conditions\n\n{facts}")) + "\n"


async def conditions(system: System, warm_up: str) -> list[str]:
    """What a system runs on and how, for every page; to be asked while it runs."""
    database, stack = system.database, system.stack
    postgres, synchronous, fsync = [
        await database.fetchval(f"SHOW {name}") for name in ("server_version", "synchronous_commit", "fsync")
    ]
    gateway = stack.configuration.gateway(stack.configuration.default_gateway)
    limit = f"{gateway.segments_per_second:g} segments/s" if gateway.segments_per_second else "no rate limit"
    return [
        f"warm-up: {warm_up} (Kafka's JVM warms up over some 300,000 messages)",
        MESSAGES,
        f"Kafka {KAFKA_VERSION}: one node, `acks=all`, idempotent; PostgreSQL {postgres}: `synchronous_commit` {synchronous}, `fsync` "
        f"{fsync}",
        f"one process per service (of the dispatcher per gateway) unless the page says otherwise; window {gateway.window}, {limit}",
        f"niceness: {', '.join(f'{service} {nice}' for service, nice in NICE.items())}, the others 0 (docs/decisions/0018)",
    ]


def load_generator(loads: Sequence[Load]) -> str:
    """How loads were sent that were sent together."""
    return f"load generator on raw sockets: {'; '.join(f'one process sends {_way(load)}' for load in loads)}"


def machine(before: str | None) -> list[str]:
    """What is measured, when, and on what; to be asked before the scenario or its warm-up loads it. `before`: the benchmark's scenario that
    has just ended, whose own load the average then shows too.
    """
    cause = f" (the benchmark's own `{before}` ran until then)" if before else ""
    return [
        *code_state(REPOSITORY),
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {os.cpu_count()} cores ({_processor()}) with everything on them; load average when "
        f"the scenario began: {os.getloadavg()[0]:.1f}{cause}",
        f"Linux {platform.release()}, Python {platform.python_version()}",
    ]


def code_state(repository: Path) -> list[str]:
    """The commit that was measured, and whether the code differs from it; nothing where there is no git to say so."""
    if not (repository / ".git").exists():  # it may lie within another repository, whose commit says nothing
        return []
    try:
        commit = _git(repository, "rev-parse", "--short", "HEAD")
        changes = _git(repository, "status", "--porcelain", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [f"commit {commit}{', with changes' if changes else ''}"]


def megabytes(size: float) -> str:
    return f"{size / 1e6:.0f}"


def _way(load: Load) -> str:
    """What of, how fast, and over what."""
    requests = "bulk requests" if load.work.bulk else "single POSTs"
    pace = f"at {load.rate:g} a second" if load.rate else "as fast as answers come"
    return f"{requests} {pace} over {load.opened} connections, at most {load.pipeline} under way on each"


def _git(repository: Path, *words: str) -> str:
    done = subprocess.run(("git", *words), cwd=repository, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
