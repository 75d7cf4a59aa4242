"""An answer, and how it goes over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

JSON = "application/json"

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. `headers` beside Content-Type, Content-Length, Date and Connection; names and values in ASCII, no line breaks."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def encode(response: Response, *, common: str, with_body: bool) -> bytes:
    """The answer's bytes. `common`: header lines that every answer of the connection has. To HEAD the body is only described."""
    head = f"{_STATUS_LINES[response.status]}{common}"
    for name, value in response.headers.items():
        head += f"{name}: {value}\r\n"
    if response.status == HTTPStatus.NO_CONTENT:
        return f"{head}\r\n".encode("ascii")
    head += f"Content-Type: {response.content_type}\r\nContent-Length: {len(response.body)}\r\n\r\n"
    return head.encode("ascii") + (response.body if with_body else b"")
