"""Doing a thing again until it succeeds, as long as the fault is a neighbour's absence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import TypeVar

import structlog

from libs.service_kit.transient import is_transient
from libs.service_kit.waiting import set_within

log = structlog.get_logger()
T = TypeVar("T")

FIRST_SECONDS = 0.2
LAST_SECONDS = 5.0
_random = Random()  # noqa: S311 - jitter, not a secret


def delays(last: float = LAST_SECONDS) -> Iterator[float]:
    """Seconds to wait before each next try: doubling up to `last`, each shortened by up to a half so that replicas spread."""
    delay = FIRST_SECONDS
    while True:
        yield delay * (0.5 + _random.random() / 2)
        delay = min(delay * 2, last)


class GivenUp(Exception):
    """The retries were called off."""


async def until_done(
    action: Callable[[], Awaitable[T]],
    *,
    what: str,
    give_up: asyncio.Event | None = None,
    on_retry: Callable[[Exception], None] | None = None,
) -> T:
    """The action's result, tried again with backoff while it fails transiently; other errors pass.

    Raises `GivenUp` instead of trying again once `give_up` is set. One warning is logged per failure.
    """
    give_up = give_up or asyncio.Event()
    for attempt, delay in enumerate(delays(), start=1):
        try:
            return await action()
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("retry", what=what, attempt=attempt, seconds=round(delay, 2), error=type(error).__name__)
            if on_retry:
                on_retry(error)
        if await set_within(give_up, delay):
            raise GivenUp
    raise AssertionError("delays() has no end")
