"""Things that are due later, in buckets of time, so that a hundred thousand of them need one timer."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class Wheel(Generic[_Item]):
    """Hands each item to `on_due` at the end of the bucket in which it falls due: never early, at most `bucket_seconds`
    late. Items of one bucket keep the order in which they were added. Belongs to the running event loop.
    """

    def __init__(self, on_due: Callable[[list[_Item]], None], bucket_seconds: float) -> None:
        self._on_due = on_due
        self._bucket_seconds = bucket_seconds
        self._loop = asyncio.get_running_loop()
        self._buckets: dict[int, list[_Item]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None

    def extend(self, delay_seconds: float, items: Iterable[_Item]) -> None:
        bucket = math.ceil((self._loop.time() + delay_seconds) / self._bucket_seconds)
        waiting = self._buckets.get(bucket)
        if waiting is not None:
            waiting.extend(items)
            return
        self._buckets[bucket] = list(items)
        heapq.heappush(self._order, bucket)
        if self._order[0] == bucket:
            self._arm()

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def close(self) -> None:
        """Forgets what is waiting."""
        if self._timer is not None:
            self._timer.cancel()
        self._buckets.clear()
        self._order.clear()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._order[0] * self._bucket_seconds, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = self._loop.time()
        due: list[_Item] = []
        while self._order and self._order[0] * self._bucket_seconds <= now:
            due += self._buckets.pop(heapq.heappop(self._order))
        if self._order:
            self._arm()
        if due:
            self._on_due(due)
