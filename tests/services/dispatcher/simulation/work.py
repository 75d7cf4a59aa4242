"""A coroutine of the product that stops wherever it waits for PostgreSQL or Kafka, and goes on when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Any

from libs.storage.database import Pool


def freely() -> bool:
    """Nothing stops it."""
    return True


class Work:
    """A coroutine of the product, from one stop to the next."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._stopped = asyncio.Event()
        self._gate: asyncio.Future[None] | None = None

    @property
    def under_way(self) -> bool:
        return self._task is not None

    async def go_on(
        self,
        begin: Callable[[], Coroutine[Any, Any, Any]],
        passes: Callable[[], bool] = freely,
        error: Exception | None = None,
    ) -> None:
        """Go on until it is done, or stops where `passes` says no. `error` is what the first wait ends with. Raises what it raises."""
        while True:
            self._stopped.clear()
            if self._task is None:
                self._task = asyncio.create_task(begin())
                self._task.add_done_callback(lambda _: self._stopped.set())
            elif self._gate is not None:
                gate, self._gate = self._gate, None
                gate.set_exception(error) if error else gate.set_result(None)
                error = None
            await self._stopped.wait()
            if self._task.done():
                task, self._task = self._task, None
                task.result()
                return
            if not passes():
                return

    async def stop(self) -> None:
        """Where the coroutine waits for a neighbour."""
        self._gate = asyncio.get_running_loop().create_future()
        self._stopped.set()
        await self._gate

    async def end(self) -> None:
        """Its process is killed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None


class Wire:
    """PostgreSQL as a process reaches it: each call stops before it is heard there and before its answer is heard here."""

    def __init__(self, pool: Pool, stop: Callable[[], Awaitable[None]]) -> None:
        self._pool = pool
        self._stop = stop

    async def _call(self, of: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        await self._stop()
        answer = await of(*args)
        await self._stop()
        return answer

    async def fetch(self, *args: Any) -> Any:
        rows = await self._call(self._pool.fetch, *args)
        # Else their order is PostgreSQL's choice, and what follows differs from run to run.
        return sorted(rows, key=itemgetter(0))

    async def fetchval(self, *args: Any) -> Any:
        return await self._call(self._pool.fetchval, *args)

    async def execute(self, *args: Any) -> Any:
        return await self._call(self._pool.execute, *args)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        await self._stop()
        async with self._pool.acquire() as connection:
            yield connection
        await self._stop()
