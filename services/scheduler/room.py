"""How many more may leave: the resolver takes them as fast as it can, and the rest waits here, in its order and not in a pile before it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from libs.service_kit.metrics import RETURNED_WAITING

ROOM_LOOK_SECONDS = 0.2


class Room:
    """What may lie before the resolver, less what does. That is looked up every 0.2 s at most; between, what leaves is counted.

    `lag` says how many returned messages of normal priority the resolver has not taken yet.
    """

    def __init__(
        self, lag: Callable[[], Awaitable[int]], records: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lag = lag
        self._records = records
        self._clock = clock
        self._looked_at: float | None = None
        self._free = 0

    async def free(self) -> int:
        """For how many messages there is room. Raises what `lag` raises: without an answer nothing of normal priority may leave."""
        now = self._clock()
        if self._looked_at is None or now - self._looked_at >= ROOM_LOOK_SECONDS:
            lag = await self._lag()
            RETURNED_WAITING.set(lag)
            self._free, self._looked_at = max(0, self._records - lag), self._clock()
        return self._free

    def take(self, count: int) -> None:
        """So many left."""
        self._free -= count

    @property
    def full(self) -> bool:
        """Whether there is room for none, as far as is known."""
        return self._free <= 0
