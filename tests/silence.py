"""A PostgreSQL that goes without a word, or whose word comes long before its connection ends."""

import asyncio
from urllib.parse import urlsplit


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (4 + len(body)).to_bytes(4, "big") + body


_SESSION_ENDS = _message(b"S", b"session\0ends\0") + _message(b"E", b"SFATAL\0VFATAL\0C57P01\0Mterminating\0\0")


class Relay:
    """Between a pool and its server. What is open can be left unanswered from some moment on, while new connections work."""

    def __init__(self, dsn: str) -> None:
        self._parts = urlsplit(dsn)
        self._silent = asyncio.Event()
        self._kept: set[object] = set()
        self._clients: list[asyncio.StreamWriter] = []

    async def listen(self) -> None:
        self.listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self.listening.sockets[0].getsockname()[1]
        netloc = self._parts.netloc.replace(f":{self._parts.port}", f":{port}")
        self.dsn = self._parts._replace(netloc=netloc).geturl()

    def fall_silent(self) -> None:
        self._silent.set()
        self._silent = asyncio.Event()

    def end_sessions(self) -> None:
        """As an administrator does; the connections are still open. Who has heard of it has the setting `session`."""
        for client in self._clients:
            client.write(_SESSION_ENDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent = self._silent
        self._clients.append(writer)
        other_reader, other_writer = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        self._kept |= {writer, other_writer}  # else they were closed, which is a word
        await asyncio.gather(_pass_on(reader, other_writer, silent), _pass_on(other_reader, writer, silent))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silent: asyncio.Event) -> None:
    while (octets := await reader.read(65_536)) and not silent.is_set():
        writer.write(octets)
    if not silent.is_set():
        writer.close()


async def relay_to(dsn: str) -> Relay:
    """A relay whose own `dsn` leads to the server of this one. Close its `listening` in the end."""
    relay = Relay(dsn)
    await relay.listen()
    return relay
