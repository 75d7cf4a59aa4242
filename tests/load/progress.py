"""Waiting for a count that grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

POLL_SECONDS = 2.0
STALLED_SECONDS = 120.0


async def reached(count: Callable[[], Awaitable[int]], expected: int, what: str) -> None:
    """Return when there are so many; fail when for two minutes there were no more. `what` is counted, in words."""
    progress, since = -1, time.monotonic()
    while progress < expected:
        await asyncio.sleep(POLL_SECONDS)
        if (now := await count()) > progress:
            progress, since = now, time.monotonic()
        assert time.monotonic() - since < STALLED_SECONDS, f"{progress} of {expected} {what}, and no more"
