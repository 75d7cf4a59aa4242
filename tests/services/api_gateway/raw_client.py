"""A client that says HTTP/1.1 byte by byte; and for a connection by itself a transport that nobody reads, and a server."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from services.api_gateway.http.application import Application
from services.api_gateway.http.connection import Connection
from tests.services.api_gateway.fakes import ALL_KEY, Gateway

HEADERS = b"Host: x\r\nAuthorization: Bearer " + ALL_KEY.encode() + b"\r\n"


def post(text: str, more: bytes = b"", version: bytes = b"1.1", **fields: Any) -> bytes:
    body = json.dumps({"message": text, "clientId": "1", **fields}).encode()
    length = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    return b"POST /sms HTTP/" + version + b"\r\n" + HEADERS + length + more + b"\r\n" + body


def get(path: bytes, more: bytes = b"", method: bytes = b"GET") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\n" + HEADERS + more + b"\r\n"


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, gateway: Gateway) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", urlsplit(gateway.url).port))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def end(self) -> None:
        self.writer.write_eof()

    async def answer(self, *, bodyless: bool = False) -> tuple[int, dict[str, str], bytes]:
        status, headers = await self.head()
        length = 0 if bodyless else int(headers.get("content-length", "0"))
        async with asyncio.timeout(5):
            return status, headers, await self.reader.readexactly(length)

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(5):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:] if line)

    async def closed(self) -> bool:
        async with asyncio.timeout(5):
            return await self.reader.read() == b""

    def close(self) -> None:
        self.writer.close()


def texts(gateway: Gateway) -> list[str]:
    return [event.data.message.text for event in gateway.publisher.events]


@dataclass
class Clock:
    """A server whose time the test tells, and that sweeps nothing."""

    application: Application
    now: float = 0.0
    common: str = ""

    def opened(self, _: Connection) -> None: ...

    def closed(self, _: Connection) -> None: ...


class Unread(asyncio.Transport):
    """Keeps what nobody reads, and says so from `HIGH` bytes on, as real ones do."""

    HIGH = 64 * 1024

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self.kept = b""
        self.reading = True
        self.ended = False
        self.closed = False
        self.aborted = False

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        room = len(self.kept) <= self.HIGH
        self.kept += data
        if room and len(self.kept) > self.HIGH:
            self._protocol.pause_writing()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write_eof(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return len(self.kept)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def read(self, most: int = -1) -> bytes:
        """Up to so many bytes, or all."""
        full = len(self.kept) > self.HIGH
        read = self.kept if most < 0 else self.kept[:most]
        self.kept = self.kept[len(read) :]
        if full and len(self.kept) <= self.HIGH:
            self._protocol.resume_writing()
        return read
