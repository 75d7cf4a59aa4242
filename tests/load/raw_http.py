"""HTTP/1.1 on bare sockets, for a load that costs little: requests written many at once, answers cut out of what one read brings."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from itertools import repeat
from typing import Final

READ_BYTES: Final = 1 << 18
_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"Content-Length: "
_CHUNKED: Final = b"Transfer-Encoding: chunked"
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"


class Connection:
    """Not blocking. `sent` holds when each request that waits for its answer was sent or due, oldest first (seconds of one clock)."""

    def __init__(self, host: str, port: int) -> None:
        """OSError when there is no connection to be had."""
        self._socket = socket.create_connection((host, port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._rest = b""
        self._unwritten = b""
        self.sent: deque[float] = deque()

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def stuck(self) -> bool:
        """Whether the peer does not take what was written: `flush` when it does again."""
        return bool(self._unwritten)

    def send(self, requests: list[bytes], since: float) -> None:
        """OSError when the connection has ended."""
        self.sent.extend(repeat(since, len(requests)))
        self._unwritten = b"".join([self._unwritten, *requests])
        self.flush()

    def flush(self) -> None:
        try:
            written = self._socket.send(self._unwritten)
        except BlockingIOError:
            return
        self._unwritten = self._unwritten[written:]

    def read(self) -> bytes:
        """What has come; empty when nothing has. ConnectionError when the connection has ended."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            raise ConnectionResetError
        return data

    def answers(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Status and body of each answer that `data` completes; iterate to the end."""
        data = self._rest + data if self._rest else data
        position = 0
        while (head_end := data.find(_END_OF_HEAD, position)) >= 0:
            at = data.find(_LENGTH, position, head_end)
            if at >= 0:
                end = head_end + 4 + int(data[at + 16 : data.index(b"\r", at)])
            elif data.find(_CHUNKED, position, head_end) >= 0:
                last = data.find(_LAST_CHUNK, head_end + 2)
                end = last + len(_LAST_CHUNK) if last >= 0 else len(data) + 1
            else:
                raise ConnectionError("an answer says nothing of its length")
            if end > len(data):
                break
            yield int(data[position + 9 : position + 12]), data[head_end + 4 : end]
            position = end
        self._rest = data[position:]

    def close(self) -> None:
        self._socket.close()
