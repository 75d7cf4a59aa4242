"""A load on POST /sms that costs little: raw sockets, keep-alive, no HTTP library. As a program: `python -m tests.load.post_load --help`.

Without a rate, every connection sends as fast as it is answered. With a rate, requests are due on a clock, and latency counts from when a
request was due, so that a server that stalls can't hide it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import uvloop

LOST = 0
"""The status of a request whose connection ended before its answer."""
_TICK_SECONDS = 0.001

MakeBody = Callable[[int], bytes]


def to_clients(count: int, text: str = "Dear client, your payment of 250.00 was received. Thank you.") -> MakeBody:
    """One text, to `count` clients in turn (ids from 1)."""
    bodies = [json.dumps({"message": text, "clientId": str(n + 1)}).encode() for n in range(count)]
    return lambda n: bodies[n % count]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send. `rate` in messages per second; None: as fast as answers come. `keys`: a prefix for Idempotency-Keys; None: no keys."""

    url: str
    api_key: str
    messages: int
    body: MakeBody = field(default_factory=lambda: to_clients(100))
    connections: int = 128
    pipeline: int = 1
    rate: float | None = None
    keys: str | None = None


@dataclass(slots=True)
class Result:
    """What came back. Latencies in seconds, of accepted messages only; `ids` in the order of the answers.

    `began` is the time of the first request, in seconds since the epoch; with a rate, message n (from 0) was due n / rate later.
    """

    began: float = 0.0
    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter[int])
    latencies: list[float] = field(default_factory=list[float])
    ids: list[str] = field(default_factory=list[str])

    @property
    def per_second(self) -> float:
        return self.statuses[202] / self.seconds if self.seconds else 0.0

    def percentile(self, percent: float) -> float:
        """The latency in seconds that this share of the accepted messages did not exceed; nan when there are none."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("nan")

    def __str__(self) -> str:
        statuses = ", ".join(f"{status or 'lost'}: {count}" for status, count in sorted(self.statuses.items()))
        p50, p95, p99 = (self.percentile(p) * 1000 for p in (50, 95, 99))
        return (
            f"{self.per_second:,.0f} accepted/s over {self.seconds:.2f} s ({statuses}); "
            f"latency p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms"
        )


async def run(load: Load) -> Result:
    """Send it all and wait for every answer. Raises OSError when no connection can be made."""
    target = urlsplit(load.url)
    source = _Source(load)
    loop = asyncio.get_running_loop()
    connections = list[_Connection]()
    for _ in range(min(load.connections, load.messages)):
        _, connection = await loop.create_connection(lambda: _Connection(source), target.hostname, target.port)
        connections.append(connection)
    source.start(connections)
    try:
        await source.done
    finally:
        source.stop()
        for connection in connections:
            connection.close()
    source.result.seconds = source.ended - source.started
    return source.result


class _Source:
    """Hands out requests to connections with a free place, and takes in the answers."""

    def __init__(self, load: Load) -> None:
        self._load = load
        host = urlsplit(load.url).netloc
        self._head = (
            f"POST /sms HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {load.api_key}\r\n"
            "Content-Type: application/json\r\n"
        ).encode()
        self._next = 0
        self._answered = 0
        self._free: deque[_Connection] = deque()
        self._due: deque[float] = deque()
        self._released = 0
        self._open = 0
        self._timer: asyncio.TimerHandle | None = None
        self.result = Result()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.started = self.ended = 0.0

    def start(self, connections: list[_Connection]) -> None:
        self._open = len(connections)
        self.result.began = time.time()
        self.started = time.perf_counter()
        for _ in range(self._load.pipeline):
            for connection in connections:
                self.free(connection)
        if self._load.rate is not None:
            self._tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def free(self, connection: _Connection) -> None:
        """The connection has a place for one more request."""
        if self._load.rate is None:
            if self._next < self._load.messages:
                connection.send(self._request(), time.perf_counter())
        elif self._due:
            connection.send(self._request(), self._due.popleft())
        else:
            self._free.append(connection)

    def answered(self, status: int, since: float, body: bytes) -> None:
        now = time.perf_counter()
        self.result.statuses[status] += 1
        if status == 202:
            self.result.latencies.append(now - since)
            start = body.index(b'"id":"') + 6
            self.result.ids.append(body[start : start + 36].decode())
        self._answered += 1
        if self._answered == self._load.messages:
            self.ended = now
            if not self.done.done():
                self.done.set_result(None)

    def gone(self, connection: _Connection) -> None:
        """A connection ended; when it was the last, what was not sent yet is lost too."""
        self._free = deque(c for c in self._free if c is not connection)
        self._open -= 1
        if self._open == 0:
            while self._next < self._load.messages:
                self._next += 1
                self.answered(LOST, 0, b"")

    def _tick(self) -> None:
        """Release what has become due since the last tick."""
        assert self._load.rate is not None
        now = time.perf_counter()
        until = min(self._load.messages, int((now - self.started) * self._load.rate) + 1)
        for n in range(self._released, until):
            due = self.started + n / self._load.rate
            if self._free:
                self._free.popleft().send(self._request(), due)
            else:
                self._due.append(due)
        self._released = until
        if until < self._load.messages:
            self._timer = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)

    def _request(self) -> bytes:
        body = self._load.body(self._next)
        key = b"" if self._load.keys is None else f"Idempotency-Key: {self._load.keys}{self._next}\r\n".encode()
        self._next += 1
        return b"%bContent-Length: %d\r\n%b\r\n%b" % (self._head, len(body), key, body)


class _Connection(asyncio.Protocol):
    """Sends requests and reads the answers, which come in the order of the requests."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._sent: deque[float] = deque()
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:  # uvloop's is no asyncio.Transport by name
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for since in self._sent:
            self._source.answered(LOST, since, b"")
        self._sent.clear()
        self._source.gone(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def send(self, request: bytes, since: float) -> None:
        if self._transport is None:
            self._source.answered(LOST, since, b"")
            return
        self._sent.append(since)
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            length = buffer.index(b"Content-Length: ") + 16  # every answer of the API says it, success or problem
            size = end + 4 + int(buffer[length : buffer.index(b"\r\n", length)])
            if len(buffer) < size:
                break
            self._source.answered(int(buffer[9:12]), self._sent.popleft(), buffer[end + 4 : size])
            buffer = buffer[size:]
            self._source.free(self)
        self._buffer = buffer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default=os.environ.get("POSTRIDER_URL", "http://127.0.0.1:8080"))
    parser.add_argument("--api-key", default=os.environ.get("POSTRIDER_API_KEY"), help="POSTRIDER_API_KEY by default")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=128)
    parser.add_argument("--pipeline", type=int, default=1, help="requests under way per connection")
    parser.add_argument("--rate", type=float, help="messages per second; as fast as possible by default")
    parser.add_argument("--keys", help="send Idempotency-Keys with this prefix")
    parser.add_argument("--clients", type=int, default=100, help="the messages go to clients 1 to this number")
    given = parser.parse_args()
    if not given.api_key:
        parser.error("an API key is needed: --api-key or POSTRIDER_API_KEY")
    load = Load(
        url=given.url,
        api_key=given.api_key,
        messages=given.messages,
        body=to_clients(given.clients),
        connections=given.connections,
        pipeline=given.pipeline,
        rate=given.rate,
        keys=given.keys,
    )
    print(uvloop.run(run(load)))


if __name__ == "__main__":
    main()
