"""What is asked of a benchmark, and what it measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CLIENTS = 1_000
CONNECTIONS = 256
PIPELINE = 4
"""Requests under way per connection."""
RECEIPT_DELAY_MS = 500
"""From the carrier's acceptance to its receipt. On a network this takes seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many messages at full speed, how often, after how many others, and the rate per second where latency is measured."""

    messages: int
    runs: int
    warm_up: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FullSpeed:
    """One run as fast as answers come. Rates per second."""

    messages: int
    accepted: float
    end_to_end: float
    to_202: Sequence[float]
    """seconds from POST to its answer, in order of length"""
    cpu: dict[str, float]
    """µs per message, by process"""
    elsewhere: float
    """cores that others on this machine used meanwhile"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedRate:
    """One run at a fixed rate. Latencies in seconds from when a message was due, in order of length."""

    priority: str
    to_202: Sequence[float]
    to_carrier: Sequence[float]
    cores: float
    """CPU used by all processes, in cores"""
    elsewhere: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    warm_up: FullSpeed | None
    full_speed: Sequence[FullSpeed]
    fixed_rate: Sequence[FixedRate]
    peak_bytes: dict[str, int]
    """by process"""


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value that this share of them does not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
