"""A load on the API (or on Kannel's) that costs little, in a process of its own. As a program: `python -m tests.load.post_load --help`.

Without a rate, every connection sends as fast as it is answered, and answers are read at most every millisecond, many at once. With a rate,
requests are due on a clock, and latency counts from when a request was due, so that a server that stalls can't hide it.
"""

from __future__ import annotations

import argparse
import gc
import os
import select
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.load.arithmetic import percentile
from tests.load.raw_http import Connection
from tests.load.requests import Writer, posts, sendsms
from tests.load.workload import Workload

LOST = 0
"""The status of a request whose connection ended before its answer."""
SAMPLE = 100
"""Ids that are kept, spread over the answers."""
_TICK_SECONDS = 0.001
_SILENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send. `rate` in requests per second; None: as fast as answers come. `keys`: a prefix for Idempotency-Keys; None: no keys.

    `callbacks`: `url` is that of Kannel's smsbox, which is to hand receipts to this one; None: it is that of our API.
    """

    url: str
    api_key: str
    work: Workload
    connections: int = 64
    pipeline: int = 16
    rate: float | None = None
    keys: str | None = None
    callbacks: str | None = None

    @property
    def opened(self) -> int:
        """Connections: no more than requests."""
        return min(self.connections, self.work.requests)

    def writer(self) -> Writer:
        if self.callbacks is not None:
            return sendsms(self.work, self.url, self.callbacks)
        return posts(self.work, self.url, self.api_key, self.keys)


@dataclass(slots=True)
class Result:
    """What came back. Statuses and latencies (seconds, of requests answered 202 alone) in the order of the answers.

    `began` is the time of the first request, in seconds since the epoch; with a rate, request n (from 0) was due n / rate later.
    `cpu_seconds` is what sending and reading cost this process.
    """

    messages: int = 0
    began: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict[int, int])
    """requests by the status of their answer"""
    latencies: list[float] = field(default_factory=list[float])
    ids: list[str] = field(default_factory=list[str])
    """of messages accepted by themselves, `SAMPLE` or so"""

    @property
    def per_second(self) -> float:
        """Accepted messages."""
        accepted = self.messages * self.statuses.get(202, 0) / max(1, sum(self.statuses.values()))
        return accepted / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        statuses = ", ".join(f"{status or 'lost'}: {count}" for status, count in sorted(self.statuses.items()))
        ordered = sorted(self.latencies) or [float("nan")]
        p50, p95, p99 = (percentile(ordered, p) * 1000 for p in (50, 95, 99))
        return (
            f"{self.per_second:,.0f} accepted/s over {self.seconds:.2f} s ({statuses}); "
            f"latency p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms; {self.cpu_seconds / self.messages * 1e6:.1f} µs CPU a message"
        )


def run(load: Load, ready: Callable[[], object] = lambda: None) -> Result:
    """Connect, call `ready`, send it all and wait for every answer.

    Raises OSError when no connection can be made, TimeoutError when nothing is answered for a minute.
    """
    target = urlsplit(load.url)
    assert target.hostname and target.port
    connections = [Connection(target.hostname, target.port) for _ in range(load.opened)]
    gc.freeze()
    gc.disable()
    try:
        ready()
        return _Sender(load, connections).run()
    finally:
        gc.enable()
        for connection in connections:
            connection.close()


class _Sender:
    """Hands out requests to connections with a free place, and takes in the answers."""

    def __init__(self, load: Load, connections: list[Connection]) -> None:
        self._load = load
        self._write = load.writer()
        self._open = {connection.fileno(): connection for connection in connections}
        self._poll = select.epoll()
        for descriptor in self._open:
            self._poll.register(descriptor, select.EPOLLIN)
        self._requests = load.work.requests
        self._next = 0
        self._answered = 0
        self._sample_every = max(1, self._requests // SAMPLE)
        self.result = Result(messages=load.work.messages)

    def run(self) -> Result:
        result = self.result
        cpu = time.process_time()
        result.began, started = time.time(), time.perf_counter()
        if self._load.rate is None:
            self._as_fast_as_answers_come()
        else:
            self._at_a_rate(self._load.rate, started)
        result.seconds = time.perf_counter() - started
        result.cpu_seconds = time.process_time() - cpu
        self._poll.close()
        return result

    def _as_fast_as_answers_come(self) -> None:
        for connection in list(self._open.values()):
            self._send(connection, self._load.pipeline, time.perf_counter())
        while self._answered < self._requests and self._open:
            time.sleep(_TICK_SECONDS)  # answers gather meanwhile: most of what an answer costs is its read
            if not self._wait(_SILENCE_SECONDS):
                raise TimeoutError("no answers")
            for connection, answers in self._read():
                self._send(connection, answers, time.perf_counter())

    def _at_a_rate(self, rate: float, started: float) -> None:
        due: deque[float] = deque()
        released, heard = 0, started
        while self._answered < self._requests and self._open:
            now = time.perf_counter()
            until = min(self._requests, int((now - started) * rate) + 1)
            due.extend(started + n / rate for n in range(released, until))
            released = until
            for connection in list(self._open.values()) if due else ():
                while due and len(connection.sent) < self._load.pipeline and connection.fileno() in self._open:
                    self._send(connection, 1, due.popleft())
            next_due = started + released / rate if released < self._requests else now + _SILENCE_SECONDS
            if self._wait(max(0.0, next_due - time.perf_counter())):
                self._read()
                heard = now
            if now - heard > _SILENCE_SECONDS:
                raise TimeoutError("no answers")

    def _wait(self, seconds: float) -> bool:
        """Whether anything has come within so long; epoll itself knows no part of a millisecond."""
        return bool(select.select([self._poll], [], [], seconds)[0])

    def _read(self) -> list[tuple[Connection, int]]:
        """Takes in what has come; how many answers on which connection."""
        came: list[tuple[Connection, int]] = []
        for descriptor, event in self._poll.poll(0):
            connection = self._open[descriptor]
            try:
                if event & select.EPOLLOUT:
                    connection.flush()
                    self._watch(connection)
                answers = self._take_in(connection, connection.read()) if event & ~select.EPOLLOUT else 0
            except OSError:
                self._gone(connection)
            else:
                came.append((connection, answers))
        return came

    def _take_in(self, connection: Connection, data: bytes) -> int:
        now, result, sent, before = time.perf_counter(), self.result, connection.sent, self._answered
        accepted = 0
        for status, body in connection.answers(data):
            since = sent.popleft()
            if status == 202:
                accepted += 1
                result.latencies.append(now - since)
                if self._answered % self._sample_every == 0:
                    start = body.find(b'"id":"') + 6
                    if start > 5:
                        result.ids.append(body[start : start + 36].decode())
            else:
                self._count(status, 1)
            self._answered += 1
        if accepted:
            self._count(202, accepted)
        return self._answered - before

    def _send(self, connection: Connection, count: int, since: float) -> None:
        of = range(self._next, min(self._requests, self._next + count))
        if not of:
            return
        self._next = of.stop
        try:
            connection.send(self._write(of), since)
        except OSError:
            self._gone(connection)
        else:
            if connection.stuck:
                self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        out = select.EPOLLOUT if connection.stuck else 0
        self._poll.modify(connection.fileno(), select.EPOLLIN | out)

    def _gone(self, connection: Connection) -> None:
        """A connection ended; when it was the last, what was not sent yet is lost too."""
        if self._open.pop(connection.fileno(), None) is None:
            return
        self._poll.unregister(connection.fileno())
        self._lose(len(connection.sent))
        connection.sent.clear()
        if not self._open:
            self._lose(self._requests - self._next)
            self._next = self._requests

    def _count(self, status: int, requests: int) -> None:
        self.result.statuses[status] = self.result.statuses.get(status, 0) + requests

    def _lose(self, requests: int) -> None:
        if requests:
            self._count(LOST, requests)
            self._answered += requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default=os.environ.get("POSTRIDER_URL", "http://127.0.0.1:8080"))
    parser.add_argument("--api-key", default=os.environ.get("POSTRIDER_API_KEY"), help="POSTRIDER_API_KEY by default")
    parser.add_argument("--messages", type=int, default=10_000, help="to clients 0000 to 0999 in turn")
    parser.add_argument("--bulk", type=int, help="so many messages per POST /sms/bulk; by default each by a POST /sms")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--pipeline", type=int, default=16, help="requests under way per connection")
    parser.add_argument("--rate", type=float, help="requests per second; as fast as possible by default")
    parser.add_argument("--keys", help="send Idempotency-Keys with this prefix")
    given = parser.parse_args()
    if not given.api_key:
        parser.error("an API key is needed: --api-key or POSTRIDER_API_KEY")
    load = Load(
        url=given.url,
        api_key=given.api_key,
        work=Workload(messages=given.messages, bulk=given.bulk),
        connections=given.connections,
        pipeline=given.pipeline,
        rate=given.rate,
        keys=given.keys,
    )
    print(run(load))


if __name__ == "__main__":
    main()
