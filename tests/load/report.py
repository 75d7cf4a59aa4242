"""What a benchmark measured, in words and tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import asyncpg

from deploy.local.kafka import KAFKA_VERSION
from deploy.local.stack import Stack
from tests.load.figures import (
    CLIENTS,
    CONNECTIONS,
    PIPELINE,
    RECEIPT_DELAY_MS,
    FixedRate,
    FullSpeed,
    Measured,
    Plan,
    percentile,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    began: datetime
    load_average: float
    """of the minute before the system was up"""
    postgres: str
    synchronous_commit: str
    fsync: str
    window: int
    dispatchers: int


async def conditions(database: asyncpg.Connection, stack: Stack) -> Conditions:
    """What can only be asked while the system runs."""
    [gateway] = stack.configuration.gateways
    return Conditions(
        began=datetime.now(UTC),
        load_average=os.getloadavg()[0],
        postgres=await database.fetchval("SHOW server_version"),
        synchronous_commit=await database.fetchval("SHOW synchronous_commit"),
        fsync=await database.fetchval("SHOW fsync"),
        window=gateway.window,
        dispatchers=len(stack.dispatchers(gateway.id)),
    )


def in_a_line(run: FullSpeed) -> str:
    return (
        f"{run.messages:,} messages: {run.accepted:,.0f}/s accepted, {run.end_to_end:,.0f}/s end to end, "
        f"{sum(run.cpu.values()):.0f} µs CPU each, {run.elsewhere:.1f} cores used elsewhere"
    )


def write(plan: Plan, measured: Measured, conditions: Conditions) -> str:
    """The whole page, in Markdown."""
    sections = (
        "# Single POSTs, end to end",
        "Made by `make bench`: from the first `POST /sms` to the last `delivered` readable. "
        "After each run the carrier's ledger holds every text exactly once.",
        _rates(measured.full_speed),
        _latencies(plan.rate, measured.fixed_rate),
        _processes(measured),
        _conditions(plan, measured, conditions),
    )
    return "\n\n".join(sections) + "\n"


def _rates(runs: Sequence[FullSpeed]) -> str:
    rows = [
        ("accepted per second", _spread([run.accepted for run in runs], ",.0f")),
        ("end to end per second", _spread([run.end_to_end for run in runs], ",.0f")),
        ("POST → 202, p50 (ms)", _spread([percentile(run.to_202, 50) * 1000 for run in runs], ".1f")),
        ("POST → 202, p99 (ms)", _spread([percentile(run.to_202, 99) * 1000 for run in runs], ".1f")),
        ("CPU per message, all processes (µs)", _spread([sum(run.cpu.values()) for run in runs], ".0f")),
        ("cores used elsewhere meanwhile", _spread([run.elsewhere for run in runs], ".2f")),
    ]
    return "\n".join((f"## As fast as it goes: median (min–max) of {len(runs)} runs\n", *_table(("", ""), rows)))


def _latencies(rate: float, runs: Iterable[FixedRate]) -> str:
    rows: list[tuple[str, ...]] = []
    for run in runs:
        for name, seconds in (("POST → 202", run.to_202), ("POST → carrier", run.to_carrier)):
            figures = (f"{percentile(seconds, percent) * 1000:.1f}" for percent in (50, 95, 99))
            rows.append((f"`{run.priority}`, {name}", *figures, f"{run.cores:.2f}", f"{run.elsewhere:.2f}"))
    head = ("", "p50 ms", "p95 ms", "p99 ms", "cores used", "cores used elsewhere")
    return "\n".join((f"## Latency at {rate:g} messages per second\n", *_table(head, rows)))


def _processes(measured: Measured) -> str:
    names = measured.full_speed[0].cpu
    rows = [
        (name, _spread([run.cpu[name] for run in measured.full_speed], ".1f"), f"{measured.peak_bytes[name] / 1e6:.0f}")
        for name in sorted(names, key=lambda name: -median(run.cpu[name] for run in measured.full_speed))
    ]
    head = ("process", "CPU per message (µs)", "peak memory (MB)")
    words = "CPU includes each process's children, ended ones too; PostgreSQL's memory is that of its largest process."
    return "\n".join((f"## By process\n\n{words}\n", *_table(head, rows)))


def _conditions(plan: Plan, measured: Measured, conditions: Conditions) -> str:
    warm_up = f"after {in_a_line(measured.warm_up)}" if measured.warm_up else "cold: nothing was sent before"
    facts = (
        f"{conditions.began:%Y-%m-%d %H:%M} UTC; {os.cpu_count()} cores ({_processor()}) with everything on them; "
        f"load average when the system was up: {conditions.load_average:.1f}",
        f"Linux {platform.release()}, Python {platform.python_version()}, Kafka {KAFKA_VERSION}, "
        f"PostgreSQL {conditions.postgres}",
        f"{plan.runs} runs of {plan.messages:,} messages, {warm_up} (Kafka's JVM warms up over some 300,000 messages)",
        f"texts of 60 characters, GSM 7-bit, one segment; {CLIENTS:,} clients in turn; a receipt for each, {RECEIPT_DELAY_MS} ms after "
        "it was accepted",
        f"Kafka: one node, `acks=all`, idempotent; PostgreSQL: `synchronous_commit` {conditions.synchronous_commit}, "
        f"`fsync` {conditions.fsync}; no Idempotency-Keys",
        f"one process per service, {conditions.dispatchers} dispatcher(s), window {conditions.window}, no rate limit; "
        f"the load generator on raw sockets, {CONNECTIONS} connections with {PIPELINE} requests under way each",
    )
    return "\n".join(("## Conditions\n", *(f"- {fact}" for fact in facts)))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]


def _spread(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
