"""The arithmetic on what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value that this share of them does not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def spread(values: Sequence[float], form: str) -> str:
    """Median and bounds, in words."""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def milliseconds(ordered: Sequence[float]) -> tuple[str, str, str]:
    """p50, p95 and p99 of seconds."""
    p50, p95, p99 = (f"{percentile(ordered, percent) * 1000:.1f}" for percent in (50, 95, 99))
    return p50, p95, p99
