"""Requests gather for a few milliseconds and are then served together: one flush at a time, the larger the more there is to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import structlog

from libs.service_kit.faults import fault

log = structlog.get_logger()

T = TypeVar("T")
R = TypeVar("R")

Flush = Callable[[Sequence[T], float], Awaitable[Sequence[R | Exception]]]
"""Serves the items; answers a result or an exception for each. Is told the loop's time by which it should be done."""

Settle = Callable[[R | Exception], None]
"""Told an item's result. Should not raise: that is logged, and nobody else minds."""

MAX_BATCH = 2_000
MAX_WAITING = 20_000
GATHER_SECONDS = 0.003
SLOWER_EVERY = 10
MOST_TIMES = 5
"""A flush gathers for GATHER_SECONDS, and for as long again for every SLOWER_EVERY items of the last one, MOST_TIMES that at most: it
costs much the same whatever its size."""
LEAST_SECONDS = 0.5
"""What a flush is given at least, however long its items have waited for the one before."""


class Overloaded(Exception):
    """Too many items wait already."""


class Gatherer(Generic[T, R]):
    """Collects what is asked and flushes it together. An item costs no future and no task."""

    def __init__(self, flush: Flush[T, R], *, timeout_seconds: float) -> None:
        self._flush = flush
        self._timeout_seconds = timeout_seconds
        self._items: list[T] = []
        self._settles: list[Settle[R]] = []
        self._asked_at: list[float] = []
        self._wake = asyncio.Event()
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run())

    def ask(self, item: T, settle: Settle[R]) -> None:
        """`settle` is told the item's result, or what went wrong. Raises `Overloaded`: then it is told nothing."""
        if len(self._items) >= MAX_WAITING or self._stopping:
            raise Overloaded
        if not self._items:
            self._wake.set()
        self._items.append(item)
        self._asked_at.append(self._loop.time())
        self._settles.append(settle)

    async def stop(self) -> None:
        """Serve what waits, and end."""
        self._stopping = True
        self._wake.set()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        served = 0
        while self._items or not self._stopping:
            await self._wake.wait()
            if not self._stopping:
                await asyncio.sleep(GATHER_SECONDS * min(MOST_TIMES, 1 + served / SLOWER_EVERY))
            items, settles, asked_at = self._items[:MAX_BATCH], self._settles[:MAX_BATCH], self._asked_at[:MAX_BATCH]
            del self._items[:MAX_BATCH], self._settles[:MAX_BATCH], self._asked_at[:MAX_BATCH]
            if not self._items and not self._stopping:
                self._wake.clear()
            served = len(items)
            if items:
                deadline = max(asked_at[0] + self._timeout_seconds, self._loop.time() + LEAST_SECONDS)
                await self._serve(items, settles, deadline)

    async def _serve(self, items: list[T], settles: list[Settle[R]], deadline: float) -> None:
        try:
            results = await self._flush(items, deadline)
            if len(results) != len(items):
                raise RuntimeError(f"a flush of {len(items)} items gave {len(results)} results")
        except Exception as error:
            results = [error] * len(items)
        for settle, result in zip(settles, results, strict=True):
            try:
                settle(result)
            except Exception as error:  # the loop serves everybody, and nothing would start it again
                log.error("a result could not be told", fault=fault(error))
