"""How much each scenario of a benchmark does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much each scenario does. Numbers of messages, but for `rate` (per second), `seconds` and `rows`."""

    runs: int = 3
    warm_up: int = 300_000
    """what Kafka's JVM needs"""
    messages: int = 100_000
    """per run at full speed"""
    bulk: int = 1_000
    """per request of POST /sms/bulk"""
    rate: float = 100
    seconds: float = 20
    """how long a rate is kept"""
    growth: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    replicas: tuple[int, ...] = (1, 2, 3)
    backlog: int = 1_000_000
    dispatches: int = 200_000
    rows: int = 10_000_000
    pages: int = 300
    """pages read at each depth"""
    waiting: tuple[int, ...] = (1_000, 1_000_000)
    due: int = 10_000


QUICK = Plan(
    runs=1,
    warm_up=1_000,
    messages=2_000,
    bulk=200,
    seconds=5,
    growth=(500, 2_000),
    replicas=(1, 2),
    backlog=3_000,
    dispatches=5_000,
    rows=20_000,
    pages=30,
    waiting=(100, 1_000),
    due=500,
)
"""Shows that the scenarios work; its figures say nothing."""
