"""Receives a callback for each message, `GET /<number>/<result>`, at a cost that is next to nothing."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Sequence

import msgspec

from tests.load.raw_http import READ_BYTES

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_SUCCESS = b"1"
_SILENCE_SECONDS = 30.0


class Expected(msgspec.Struct, frozen=True):
    """Messages by their numbers, from `first` to `stop` without it."""

    first: int
    stop: int


class Called(msgspec.Struct, frozen=True):
    """`last`: when the last callback came, in seconds since the epoch."""

    last: float
    missing: int
    """after so long a silence that no more will come"""
    others: int
    """callbacks of other messages, second ones, and those that tell of a failure"""


class Callbacks:
    """The calls of messages that are expected."""

    def __init__(self, expected: Expected) -> None:
        self._missing = set(range(expected.first, expected.stop))
        self._others = 0
        self._last = time.time()

    def take(self, paths: Sequence[bytes]) -> None:
        for path in paths:
            number, _, result = path[1:].partition(b"/")
            if result == _SUCCESS and int(number) in self._missing:
                self._missing.remove(int(number))
            else:
                self._others += 1
        self._last = time.time()

    @property
    def over(self) -> bool:
        return not self._missing or time.time() - self._last > _SILENCE_SECONDS

    def result(self) -> Called:
        return Called(last=self._last, missing=len(self._missing), others=self._others)


def paths_in(data: bytes) -> tuple[list[bytes], bytes]:
    """What the whole requests without a body ask for, and the beginning of one that is not all there yet."""
    *heads, rest = data.split(b"\r\n\r\n")
    return [head.split(b" ", 2)[1] for head in heads], rest


def serve(listener: socket.socket, orders: int, say: Callable[[Called], object]) -> None:
    """Answers every callback at once, until `orders` end: a descriptor with a line of JSON for each `Expected`, of which `say` is told in
    the end, and before the next comes.
    """
    poll, peers, rests = select.epoll(), dict[int, socket.socket](), dict[int, bytes]()
    callbacks = Callbacks(Expected(0, 0))
    waiting = False
    for descriptor in (listener.fileno(), orders):
        poll.register(descriptor, select.EPOLLIN)
    while True:
        for descriptor, _ in poll.poll(1):
            if descriptor == orders:
                if not (line := os.read(orders, READ_BYTES)):
                    return
                callbacks, waiting = Callbacks(msgspec.json.decode(line, type=Expected)), True
            elif descriptor == listener.fileno():
                peer, _ = listener.accept()
                peers[peer.fileno()], rests[peer.fileno()] = peer, b""
                poll.register(peer, select.EPOLLIN)
            elif paths := _read(peers[descriptor], rests):
                callbacks.take(paths)
            elif paths is None:
                peers.pop(descriptor).close()
        if waiting and callbacks.over:
            say(callbacks.result())
            waiting = False


def _read(peer: socket.socket, rests: dict[int, bytes]) -> list[bytes] | None:
    """What was asked for, and answered; None when the peer has gone."""
    try:
        if not (data := peer.recv(READ_BYTES)):
            return None
        paths, rests[peer.fileno()] = paths_in(rests[peer.fileno()] + data)
        peer.sendall(_ANSWER * len(paths))
    except OSError:
        return None
    return paths
