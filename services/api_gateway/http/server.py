"""The public HTTP server: listens, looks after its connections about once a second, and drains them at the stop."""

from __future__ import annotations

import asyncio
from email.utils import formatdate

from services.api_gateway.http.application import Application
from services.api_gateway.http.connection import Connection

SWEEP_SECONDS = 1.0
BACKLOG = 1024


class Server:
    """A listening server. `now` (the loop's time) and `common` (the header lines that every answer has) are of the last sweep."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.now = 0.0
        self.common = ""
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self._all_closed = asyncio.Event()
        self._sweep()

    async def listen(self, host: str, port: int) -> None:
        """Raises OSError when the address is taken."""
        try:
            self._listener = await self._loop.create_server(lambda: Connection(self), host, port, backlog=BACKLOG)
        except OSError:
            self._timer.cancel()
            raise

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.sockets[0].getsockname()[:2]
        return host, port

    async def stop(self, budget_seconds: float) -> None:
        """Close the door, answer what is under way, and close the connections; those that take longer are cut off."""
        self._listener.close()
        for connection in tuple(self._connections):
            connection.drain()
        try:
            async with asyncio.timeout(budget_seconds):
                while self._connections:
                    self._all_closed.clear()
                    await self._all_closed.wait()
        except TimeoutError:
            for connection in tuple(self._connections):
                connection.abort()
        self._timer.cancel()

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_closed.set()

    def _sweep(self) -> None:
        self._timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)  # first: no connection's fault ends it
        self.now = self._loop.time()
        self.common = f"Date: {formatdate(usegmt=True)}\r\n"
        for connection in tuple(self._connections):
            connection.sweep()


async def serve(application: Application, host: str, port: int) -> Server:
    """Listen until the server is stopped. Raises OSError when the address is taken."""
    server = Server(application)
    await server.listen(host, port)
    return server
