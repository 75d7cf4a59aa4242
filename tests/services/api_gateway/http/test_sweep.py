"""How long a connection is kept, by a clock that the test tells."""

import pytest

from services.api_gateway.bulk.batch import SLICE
from services.api_gateway.http import connection
from services.api_gateway.http.calls import MAX_BODY_BYTES
from tests.services.api_gateway.bulk.test_stream import GOOD, let_slices_through, post_bulk
from tests.services.api_gateway.fakes import Gateway
from tests.services.api_gateway.raw_client import Clock, Unread, get, post, texts
from tests.waiting import until

TOO_LARGE = get(b"/sms", b"Content-Type: application/json\r\nContent-Length: %d\r\n" % (MAX_BODY_BYTES + 1), b"POST")


def connect(gateway: Gateway) -> tuple[Clock, connection.Connection, Unread]:
    clock = Clock(gateway.server.application)
    protocol = connection.Connection(clock)
    transport = Unread(protocol)
    protocol.connection_made(transport)
    return clock, protocol, transport


async def test_who_sends_on_after_the_last_answer_is_heard_for_a_while_and_then_cut_off(gateway: Gateway) -> None:
    clock, protocol, transport = connect(gateway)
    protocol.data_received(TOO_LARGE)
    assert transport.kept.startswith(b"HTTP/1.1 413 ")
    assert transport.ended
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


async def test_each_step_of_a_request_has_its_own_time(gateway: Gateway) -> None:
    clock, protocol, transport = connect(gateway)
    sent = post("step by step")
    steps = ((b"", "KEEPALIVE_SECONDS"), (sent[:20], "HEAD_SECONDS"), (sent[20:-1], "BODY_SECONDS"))
    for part, seconds in steps:
        protocol.data_received(part)
        clock.now += getattr(connection, seconds) - 0.1
        protocol.sweep()
        assert (transport.kept, transport.closed) == (b"", False)
    protocol.data_received(sent[-1:])
    await until(lambda: transport.kept.startswith(b"HTTP/1.1 202 "))
    protocol.connection_lost(None)


async def test_who_reads_late_is_read_again_and_may_then_send_the_rest(gateway: Gateway) -> None:
    clock, protocol, transport = connect(gateway)
    transport.HIGH = 1024  # the first answer alone is far above
    sent = post("the rest")
    protocol.data_received(get(b"/openapi.json") + sent[:-1])
    assert not transport.reading
    clock.now += connection.STALLED_SECONDS - 0.1
    transport.read()
    assert transport.reading
    protocol.sweep()
    assert transport.kept == b""
    protocol.data_received(sent[-1:])
    await until(lambda: texts(gateway) == ["the rest"])
    protocol.connection_lost(None)


async def begin_stream(gateway: Gateway, protocol: connection.Connection, transport: Unread) -> None:
    """The first of two slices is answered; the other waits for the gate."""
    gateway.publisher.gate.clear()
    let_slices_through(gateway, 1)
    transport.HIGH = 1 << 20
    protocol.data_received(post_bulk([GOOD] * 2 * SLICE))
    await until(lambda: transport.kept != b"")


async def test_an_answer_may_go_on_for_long_before_its_client_is_idle(gateway: Gateway) -> None:
    clock, protocol, transport = connect(gateway)
    await begin_stream(gateway, protocol, transport)
    clock.now += connection.KEEPALIVE_SECONDS + 1
    protocol.sweep()
    gateway.publisher.gate.set()
    await until(lambda: transport.kept.endswith(b"\r\n0\r\n\r\n"))
    protocol.sweep()
    assert not transport.closed
    protocol.connection_lost(None)


async def test_who_stops_reading_has_the_whole_time_however_long_ago_the_answer_began(gateway: Gateway) -> None:
    clock, protocol, transport = connect(gateway)
    await begin_stream(gateway, protocol, transport)
    clock.now += connection.STALLED_SECONDS + 1
    protocol.pause_writing()
    protocol.sweep()
    assert not transport.aborted
    clock.now += connection.STALLED_SECONDS + 1
    protocol.sweep()
    assert transport.aborted
    protocol.connection_lost(None)
