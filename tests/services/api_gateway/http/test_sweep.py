"""How long a connection is kept, by a clock that the test tells."""

import asyncio

import pytest

from services.api_gateway.http import connection
from services.api_gateway.http.calls import MAX_BODY_BYTES
from tests.services.api_gateway.fakes import Gateway
from tests.services.api_gateway.raw_client import Clock, Unread, get, post
from tests.waiting import until

TOO_LARGE = get(b"/sms", b"Content-Type: application/json\r\nContent-Length: %d\r\n" % (MAX_BODY_BYTES + 1), b"POST")


def connect(gateway: Gateway) -> tuple[Clock, connection.Connection, Unread]:
    clock = Clock(gateway.server.application)
    protocol, transport = connection.Connection(clock), Unread(asyncio.Protocol())
    protocol.connection_made(transport)
    return clock, protocol, transport


async def test_who_sends_on_after_the_last_answer_is_heard_for_a_while_and_then_cut_off(gateway: Gateway) -> None:
    clock, protocol, transport = connect(gateway)
    protocol.data_received(TOO_LARGE)
    assert transport.kept.startswith(b"HTTP/1.1 413 ")
    for _ in range(2):
        clock.now += connection.LINGER_SECONDS / 2
        protocol.data_received(b"x" * 1000)
        protocol.sweep()
    assert not transport.aborted
    clock.now += 0.1
    protocol.sweep()
    assert transport.aborted
    protocol.connection_lost(None)


async def test_a_stop_does_not_wait_for_who_sends_on_after_the_last_answer(gateway: Gateway) -> None:
    _, protocol, transport = connect(gateway)
    protocol.data_received(TOO_LARGE)
    assert not transport.closed
    protocol.drain()
    assert transport.closed
    protocol.connection_lost(None)


@pytest.mark.parametrize(("begun", "seconds"), [(b"", "KEEPALIVE_SECONDS"), (b"GET /sms HTTP/1.1\r\n", "HEAD_SECONDS")])
async def test_who_waits_for_an_answer_is_not_let_go(gateway: Gateway, begun: bytes, seconds: str) -> None:
    clock, protocol, transport = connect(gateway)
    gateway.publisher.gate.clear()
    protocol.data_received(post("waits") + begun)
    clock.now += getattr(connection, seconds) + 1
    protocol.sweep()
    gateway.publisher.gate.set()
    await until(lambda: transport.kept != b"")
    assert transport.kept.startswith(b"HTTP/1.1 202 ")
    assert b"Connection: close" not in transport.kept
    assert not transport.closed
    protocol.connection_lost(None)
