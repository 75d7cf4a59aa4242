"""PostgreSQL that is slow in two ways, one after the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.storage.database import Pool


@asynccontextmanager
async def held_up(pool: Pool, table: str, seconds: float) -> AsyncIterator[None]:
    """For so long no connection of the pool is free, and then for as long again the table is locked."""
    locker, *others = [await pool.acquire() for _ in range(pool.get_max_size())]
    locked = locker.transaction()
    await locked.start()
    await locker.execute(f"LOCK TABLE {table}")

    async def free() -> None:
        await asyncio.sleep(seconds)
        for connection in others:
            await pool.release(connection)
        await asyncio.sleep(seconds)
        await locked.rollback()
        await pool.release(locker)

    freed = asyncio.create_task(free())
    try:
        yield
    finally:
        await freed
