"""The time of day, as the carrier writes it down."""

from __future__ import annotations

import time


def clock_us() -> int:
    """µs since the epoch."""
    return time.time_ns() // 1_000
