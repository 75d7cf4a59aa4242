"""A read that waits for a message has every replica fold at once what it keeps back: any of them may have that message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from libs.service_kit.backoff import until_done
from libs.storage.database import Pool

CHANNEL = "outbox.hurry"
AT_MOST_EVERY_SECONDS = 0.1


class Hurry:
    """Call it while a read waits. `hurry_here` hurries this replica; `run` carries the word to the others, and takes theirs."""

    def __init__(self, pool: Pool, hurry_here: Callable[[], None]) -> None:
        self._pool = pool
        self._hurry_here = hurry_here
        self._asked = asyncio.Event()
        self.carrying = False
        """Whether the other replicas hear of it now."""

    def __call__(self) -> None:
        self._hurry_here()
        self._asked.set()

    async def run(self) -> None:
        """Holds a connection of the pool, and makes it anew when it is lost."""
        while True:
            await until_done(self._carry, what="hurry")

    async def _carry(self) -> None:
        """Carry the word to the other replicas, and take theirs, until the connection is lost."""
        lost = False

        def on_lost(_: object) -> None:
            nonlocal lost
            lost = True
            self._asked.set()

        async with self._pool.acquire() as connection:
            own = connection.get_server_pid()

            def on_heard(_: object, pid: int, channel: str, payload: object) -> None:
                if pid != own:
                    self._hurry_here()

            connection.add_termination_listener(on_lost)
            await connection.add_listener(CHANNEL, on_heard)
            self.carrying = True
            try:
                while not lost:
                    await self._asked.wait()
                    self._asked.clear()
                    if not lost:
                        await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
                        await asyncio.sleep(AT_MOST_EVERY_SECONDS)
            finally:
                self.carrying = False
                if not lost:  # it ends with its listener: UNLISTEN would wait for a server that says nothing
                    connection.remove_termination_listener(on_lost)
                    connection.terminate()
