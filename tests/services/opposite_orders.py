"""Two who do the same to the same three rows at once, one in the opposite order of the other: a deadlock, unless the code orders them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from libs.storage.database import Pool
from libs.storage.partitions import Connection
from tests.waiting import until

_BOTH_WAIT = "SELECT count(*) = 2 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

_Row = TypeVar("_Row")
_Done = TypeVar("_Done")


class _OneConnection:
    """Stands for a pool."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        yield self._connection


async def in_opposite_orders(
    pool: Pool, do: Callable[[Pool, Sequence[_Row]], Awaitable[_Done]], rows: Sequence[_Row]
) -> list[_Done]:
    """What both get. A third holds the row in the middle until each of them waits: both have begun by then, and gone as far as they can."""
    async with pool.acquire() as third:

        async def both_wait() -> bool:
            await third.execute("SELECT pg_stat_clear_snapshot()")
            return await third.fetchval(_BOTH_WAIT)

        holding = third.transaction()
        await holding.start()
        await do(cast(Pool, _OneConnection(third)), [rows[1]])
        doing = [asyncio.ensure_future(do(pool, order)) for order in (rows, rows[::-1])]
        try:
            await until(both_wait, "both to wait")
        finally:
            await holding.rollback()
    return await asyncio.gather(*doing)
