"""An answer, and how it goes over the wire: whole, or piece by piece."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol

import msgspec

JSON = "application/json"
LAST_CHUNK = b"0\r\n\r\n"

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class Response(msgspec.Struct, frozen=True, gc=False):
    """A whole answer. `headers` beside Content-Type, Content-Length, Date and Connection; names and values in ASCII, no line breaks."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])


class Stream(Protocol):
    """Takes an answer whose length isn't known as it begins. None of these waits for who reads it."""

    def begin(self, response: Response) -> None:
        """The status, the headers, and how the body begins."""
        ...

    def more(self, piece: bytes) -> None: ...

    def end(self) -> None: ...


def encode(response: Response, *, common: str, with_body: bool) -> bytes:
    """The answer's bytes. `common`: header lines that every answer of the connection has. To HEAD the body is only described."""
    head = _head(response, common)
    if response.status == HTTPStatus.NO_CONTENT:
        return f"{head}\r\n".encode("ascii")
    head += f"Content-Type: {response.content_type}\r\nContent-Length: {len(response.body)}\r\n\r\n"
    return head.encode("ascii") + (response.body if with_body else b"")


def encode_beginning(response: Response, *, common: str) -> bytes:
    """As much of an answer as there is. `chunk`s follow, then `LAST_CHUNK`."""
    head = f"{_head(response, common)}Content-Type: {response.content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode("ascii") + chunk(response.body)


def chunk(piece: bytes) -> bytes:
    """A piece of a body in the chunked coding (RFC 9112 §7.1). An empty one is none: it would end the body."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""


def _head(response: Response, common: str) -> str:
    head = f"{_STATUS_LINES[response.status]}{common}"
    for name, value in response.headers.items():
        head += f"{name}: {value}\r\n"
    return head
