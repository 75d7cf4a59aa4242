"""Waiting for a condition, bounded."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

WITHIN_SECONDS = 60.0
POLL_SECONDS = 0.02


async def until(
    condition: Callable[[], T | Awaitable[T]], what: str = "the condition", *, within: float = WITHIN_SECONDS
) -> T:
    """What `condition`, a plain function or a coroutine's, answers as soon as that is true; fails, saying what was waited for,
    after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        answer: Any = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        await asyncio.sleep(POLL_SECONDS)
