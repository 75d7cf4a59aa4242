"""The TCP side of a session: writes that are coalesced, reading that can be slowed down, and ways to end."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, for zero seconds: closing resets


class Connection(asyncio.Protocol):
    """`bytes_per_second` tells how fast to read right now: None: as it comes; 0: not at all."""

    def __init__(self, bytes_per_second: Callable[[], int | None]) -> None:
        self._bytes_per_second = bytes_per_second
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._peer_reads = True
        self._resting: asyncio.TimerHandle | None = None
        self.closing = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """done once nothing more goes either way"""

    def send(self, frame: bytes) -> None:
        """Queues a whole PDU; `flush` writes it."""
        self._out.append(frame)

    def flush(self) -> None:
        """Writes what is queued, in one piece."""
        if self._out and self._transport is not None and not self.closing:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def close(self, *, reset: bool = False) -> None:
        """Ends the connection once what is queued is written, or by TCP reset."""
        if self.closing or self._transport is None:
            return
        self.flush()
        self.closing = True
        if reset:
            connection: socket.socket = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
        elif self._peer_reads:
            self._transport.close()
        else:
            self._transport.abort()  # what is queued would never go

    @property
    def deaf(self) -> bool:
        """Whether it is we who don't read, so that the peer's silence means nothing."""
        return self._resting is not None or self._bytes_per_second() == 0

    @property
    def writable(self) -> bool:
        """Whether the peer takes what is written."""
        return self._peer_reads and not self.closing

    def apply_reading_rate(self) -> None:
        """Goes by the reading rate in force now; to be called when that has changed."""
        self._rested()

    def slow_down(self, octets: int) -> None:
        """Having read so many octets, reads no more until the reading rate allows it."""
        rate = self._bytes_per_second()
        if rate and not self.closing:
            self._resting = asyncio.get_running_loop().call_later(octets / rate, self._rested)
            self._read_or_not()

    def _rested(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self._transport is None or self.closing:
            return
        # A peer that doesn't read can't be answered, so nothing more is taken in from it either.
        if self._peer_reads and not self.deaf:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # Python 3.11's transport begins to read right after this call, even if it was paused within it.
        asyncio.get_running_loop().call_soon(self._read_or_not)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        if self._resting is not None:
            self._resting.cancel()
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self._peer_reads = False
        self._read_or_not()

    def resume_writing(self) -> None:
        self._peer_reads = True
        self._read_or_not()
