"""Numbers for messages, from a Postgres sequence in blocks: most take nothing from Postgres."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from services.api_gateway.neighbours import Neighbour

log = structlog.get_logger()

BLOCK = 10_000
"""What one value of the sequence stands for; the sequence's increment in the migration."""
_NONE_LEFT = "no message numbers are left; nothing was accepted"


class Numbers:
    """A stock of unused numbers. `next_block` answers the first number of a block that nobody else has.

    A block is fetched ahead when less than one is left, so that the stock outlasts a short absence of Postgres.
    """

    def __init__(self, next_block: Callable[[], Awaitable[int]], postgres: Neighbour) -> None:
        self._next_block = next_block
        self._postgres = postgres
        self._stock: deque[int] = deque()
        self._run = range(0)
        self._fetching = asyncio.Lock()
        self._ahead: asyncio.Task[None] | None = None

    async def take(self, count: int) -> list[int]:
        """That many numbers. Raises the problem 503 when the stock is used up and Postgres is away."""
        while len(self._stock) < count:
            with self._postgres.needed(_NONE_LEFT):
                await self.fetch(count)
        taken = [self._stock.popleft() for _ in range(count)]
        if len(self._stock) < BLOCK and (self._ahead is None or self._ahead.done()):
            self._ahead = asyncio.create_task(self._fetch_ahead())
        return taken

    async def take_run(self, count: int) -> int:
        """The first of that many numbers in a row, a block at most. What is left of a block that is too short for it is given to nobody.
        Raises the problem 503 when a new block is needed and Postgres is away."""
        async with self._fetching:
            if len(self._run) < count:
                with self._postgres.needed(_NONE_LEFT):
                    first = await self._next_block()
                self._run = range(first, first + BLOCK)
            taken, self._run = self._run[:count], self._run[count:]
            return taken.start

    async def fetch(self, least: int) -> None:
        """Add blocks until there are that many numbers. Raises what `next_block` raises."""
        async with self._fetching:
            while len(self._stock) < least:
                first = await self._next_block()
                self._stock.extend(range(first, first + BLOCK))

    async def stop(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)

    async def _fetch_ahead(self) -> None:
        try:
            await self.fetch(BLOCK)
        except Exception as error:
            log.warning("numbers could not be fetched ahead", left=len(self._stock), reason=type(error).__name__)
