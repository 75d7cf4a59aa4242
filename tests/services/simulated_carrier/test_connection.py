from __future__ import annotations

import asyncio

import pytest

from services.simulated_carrier.connection import Connection
from tests.waiting import until


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.written: list[bytes] = []
        self.ended = ""

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


def connected(rate: int | None = None) -> tuple[Connection, FakeTransport]:
    connection, transport = Connection(lambda: rate), FakeTransport()
    connection.connection_made(transport)
    return connection, transport


async def test_what_is_queued_is_written_in_one_piece() -> None:
    connection, transport = connected()
    connection.send(b"one ")
    connection.send(b"two")
    assert transport.written == []
    connection.flush()
    connection.flush()
    assert transport.written == [b"one two"]


async def test_nothing_is_read_from_a_peer_that_does_not_read() -> None:
    connection, transport = connected()
    connection.pause_writing()
    assert (transport.reading, connection.writable) == (False, False)
    connection.apply_reading_rate()
    assert not transport.reading
    connection.resume_writing()
    assert (transport.reading, connection.writable) == (True, True)


async def test_a_reading_rate_rests_after_each_read_and_zero_rests_for_good() -> None:
    connection, transport = connected(rate=1_000)
    assert transport.reading
    connection.slow_down(20)
    assert (transport.reading, connection.deaf) == (False, True)
    await until(lambda: transport.reading)
    assert not connection.deaf
    _, unread = connected(rate=0)
    await until(lambda: not unread.reading)


@pytest.mark.parametrize(("peer_reads", "ended"), [(True, "closed"), (False, "aborted")])
async def test_closing_writes_what_is_queued_if_it_can_go(peer_reads: bool, ended: str) -> None:
    connection, transport = connected()
    if not peer_reads:
        connection.pause_writing()
    connection.send(b"last")
    connection.close()
    connection.send(b"too late")
    connection.flush()
    assert (transport.written, transport.ended) == ([b"last"], ended)
    assert not connection.closed.done()
    connection.connection_lost(None)
    assert connection.closed.done()
