"""What a connection takes, for how long it waits, and how it ends."""

import asyncio
import re
import tracemalloc
import weakref
from urllib.parse import urlsplit

import pytest

from services.api_gateway.http import connection, server
from tests.garbage import no_garbage_collection
from tests.services.api_gateway.fakes import ALL_KEY, ASYNCAPI, OPENAPI, Gateway
from tests.services.api_gateway.raw_client import HEADERS, Client, Clock, Unread, get, post, texts
from tests.waiting import until


async def test_a_head_of_some_length_may_come_in_many_parts(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    sent = post("long head", b"".join(b"X-%d: %b\r\n" % (n, b"y" * 90) for n in range(140)))
    for start in range(0, len(sent), 500):
        client.send(sent[start : start + 500])
        await asyncio.sleep(0.001)
    assert (await client.answer())[0] == 202
    client.close()


@pytest.mark.parametrize(("length", "status"), [(15_000, 202), (17_000, 400)])
@pytest.mark.parametrize("size", [500, 5_000, 20_000])
async def test_how_long_one_header_may_be_does_not_depend_on_the_parts_it_comes_in(
    gateway: Gateway, length: int, status: int, size: int
) -> None:
    protocol, transport = connection.Connection(gateway.server), Unread(asyncio.Protocol())
    protocol.connection_made(transport)
    sent = post("long header", b"X-Long: " + b"y" * length + b"\r\n")
    for start in range(0, len(sent), size):
        protocol.data_received(sent[start : start + size])
    await until(lambda: transport.kept != b"")
    assert transport.kept.startswith(b"HTTP/1.1 %d " % status)
    protocol.connection_lost(None)


@pytest.mark.parametrize("begun", [b"X-Long: " + b"y" * 9000, b"X: " + b"y" * 80 + b"\r\n"])
async def test_a_head_that_never_ends_is_refused(gateway: Gateway, begun: bytes) -> None:
    client = await Client.connect(gateway)
    client.send(b"GET /sms HTTP/1.1\r\n")
    for _ in range(300):
        client.send(begun)
        await asyncio.sleep(0)
    status, headers, _ = await client.answer()
    assert (status, headers["connection"]) == (400, "close")
    client.close()


def begin_chunked(api_key: str = ALL_KEY) -> bytes:
    """A whole body in chunks, but for its trailers."""
    body = b'{"message": "in chunks", "clientId": "1"}'
    head = b"POST /sms HTTP/1.1\r\n" + HEADERS.replace(ALL_KEY.encode(), api_key.encode())
    head += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n" % (len(body), body)


@pytest.mark.parametrize("begun", [b"X-Long: " + b"y" * 9000, b"X: " + b"y" * 80 + b"\r\n"])
async def test_trailers_that_never_end_are_refused(gateway: Gateway, begun: bytes) -> None:
    client = await Client.connect(gateway)
    client.send(begin_chunked())
    for _ in range(300):
        client.send(begun)
        await asyncio.sleep(0)
    status, headers, _ = await client.answer()
    assert (status, headers["connection"]) == (400, "close")
    assert texts(gateway) == []
    client.close()


async def test_trailers_that_never_end_end_the_connection_of_who_was_refused_too(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    client.send(begin_chunked("no-such-key-0123456789"))
    for _ in range(300):
        client.send(b"X-Long: " + b"y" * 9000)
        await asyncio.sleep(0)
    assert (await client.answer())[0] == 401
    assert await client.closed()


async def test_a_body_in_many_small_parts_has_room_for_what_divides_them(gateway: Gateway) -> None:
    body = post("x").partition(b"\r\n\r\n")[2] + b" " * 1000
    protocol, transport = connection.Connection(gateway.server), Unread(asyncio.Protocol())
    protocol.connection_made(transport)
    protocol.data_received(begin_chunked().partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    for byte in body:
        for part in (b"000000000000001", b";of=one-byte\r\n", bytes([byte]), b"\r\n"):
            protocol.data_received(part)
    protocol.data_received(b"0\r\n\r\n")
    await until(lambda: transport.kept != b"")
    assert transport.kept.startswith(b"HTTP/1.1 202 ")
    protocol.connection_lost(None)


async def test_a_body_in_many_small_chunks_takes_not_much_more_memory_than_its_length(gateway: Gateway) -> None:
    protocol, transport = connection.Connection(gateway.server), Unread(asyncio.Protocol())
    protocol.connection_made(transport)
    head = get(b"/sms/bulk", b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", b"POST")
    chunks, count = b"2\r\n  \r\n" * 1000, 100
    tracemalloc.start()
    protocol.data_received(head)
    for _ in range(count):
        protocol.data_received(chunks)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 2 * count * 2000
    protocol.data_received(b"0\r\n\r\n")
    await until(lambda: transport.kept.startswith(b"HTTP/1.1 400 "))
    protocol.connection_lost(None)


async def test_a_long_target_is_refused(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    client.send(get(b"/sms?tag=" + b"x" * 20_000))
    assert (await client.answer())[0] == 400
    client.close()


async def test_a_large_body_is_refused_before_it_comes(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    client.send(get(b"/sms", b"Content-Type: application/json\r\nContent-Length: 65537\r\n", b"POST"))
    status, headers, _ = await client.answer()
    assert (status, headers["connection"]) == (413, "close")
    client.send(b"x" * 65537)
    assert await client.closed()


async def test_a_client_that_goes_away_disturbs_nobody(gateway: Gateway) -> None:
    gateway.publisher.gate.clear()
    client = await Client.connect(gateway)
    client.send(post("gone"))
    await until(lambda: gateway.publisher.calls == 1)
    client.close()
    await asyncio.sleep(0.02)
    gateway.publisher.gate.set()
    assert (await gateway.send()).status == 202


class Lost(asyncio.Transport):
    """As uvloop's is from a client's reset until its protocol is told: to write to it is an error."""

    lost = False

    def is_closing(self) -> bool:
        return self.lost

    def write(self, data: object) -> None:
        if self.lost:
            raise RuntimeError("the handler is closed")

    def write_eof(self) -> None:
        self.write(b"")

    def close(self) -> None: ...


async def test_a_client_whose_loss_is_not_told_yet_disturbs_nobody_who_is_answered_with_it(gateway: Gateway) -> None:
    gateway.publisher.gate.clear()
    first = asyncio.create_task(gateway.send())
    await until(lambda: gateway.publisher.calls == 1)
    protocol, transport = connection.Connection(gateway.server), Lost()
    protocol.connection_made(transport)
    protocol.data_received(post("gone"))
    beside = asyncio.create_task(gateway.send())
    await asyncio.sleep(0.05)
    transport.lost = True
    gateway.publisher.gate.set()
    async with asyncio.timeout(5):
        assert [(await first).status, (await beside).status] == [202, 202]
    protocol.connection_lost(None)
    assert gateway.publisher.calls == 2


async def test_a_client_whose_loss_is_not_told_yet_is_given_up_without_a_fault(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol, transport = connection.Connection(gateway.server), Lost()
    protocol.connection_made(transport)
    protocol.data_received(post("late")[:-1])
    transport.lost = True
    monkeypatch.setattr(connection, "BODY_SECONDS", -1.0)
    protocol.sweep()
    protocol.connection_lost(None)


async def test_one_connections_fault_does_not_end_the_sweep(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    swept = 0

    class Faulty(connection.Connection):
        def sweep(self) -> None:
            nonlocal swept
            swept += 1
            raise RuntimeError("a fault")

    monkeypatch.setattr(server, "SWEEP_SECONDS", 0.01)
    sweeping = await server.serve(gateway.server.application, "127.0.0.1", 0)
    faulty = Faulty(sweeping)
    sweeping.opened(faulty)
    await until(lambda: swept > 1)
    sweeping.closed(faulty)
    await sweeping.stop(1)


@pytest.mark.parametrize(
    ("limit", "sent", "status"),
    [
        ("BODY_SECONDS", post("late")[:-1], 408),
        ("HEAD_SECONDS", b"GET /sms HTTP/1.1\r\nHost", 408),
        ("KEEPALIVE_SECONDS", b"", None),
    ],
)
async def test_slow_clients_are_let_go(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, limit: str, sent: bytes, status: int | None
) -> None:
    client, patient = await Client.connect(gateway), await Client.connect(gateway)
    client.send(sent)
    monkeypatch.setattr(connection, limit, 0.1)
    if status is not None:
        assert (await client.answer())[0] == status
        patient.send(post("in time"))
        assert (await patient.answer())[0] == 202
    assert await client.closed()
    assert "late" not in texts(gateway)
    patient.close()


async def test_a_large_body_has_the_longer_the_more_of_it_has_come(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol, transport = connection.Connection(gateway.server), Unread(asyncio.Protocol())
    protocol.connection_made(transport)
    monkeypatch.setattr(connection, "BODY_SECONDS", -10.0)
    head = (
        b"POST /sms/bulk HTTP/1.1\r\n" + HEADERS + b"Content-Type: application/json\r\nContent-Length: 9999999\r\n\r\n"
    )
    protocol.data_received(head + b" " * 20 * connection.BODY_BYTES_A_SECOND)
    protocol.sweep()
    assert transport.kept == b""
    monkeypatch.setattr(connection, "BODY_SECONDS", -30.0)
    protocol.sweep()
    assert transport.kept.startswith(b"HTTP/1.1 408 ")
    protocol.connection_lost(None)


async def test_what_came_in_one_piece_is_served_only_as_far_as_its_answers_are_read(gateway: Gateway) -> None:
    protocol = connection.Connection(gateway.server)
    transport = Unread(protocol)
    protocol.connection_made(transport)
    paths = [(b"/openapi.json", b"/asyncapi.json", b"/clients")[n % 3] for n in range(300)]
    expected = {b"/openapi.json": len(OPENAPI), b"/asyncapi.json": len(ASYNCAPI)}
    protocol.data_received(b"".join(map(get, paths)))
    read = b""
    while transport.kept:
        assert len(transport.kept) <= Unread.HIGH + 2 * max(expected.values())
        read += transport.read()
    protocol.connection_lost(None)
    answered = [int(length) for length in re.findall(rb"Content-Length: (\d+)", read)]
    assert len(answered) == len(paths)
    assert [(path, length) for path, length in zip(paths, answered, strict=True) if path in expected] == [
        (path, expected[path]) for path in paths if path in expected
    ]


async def test_a_client_that_does_not_read_its_answers_is_read_no_more_and_cut_off(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.5)
    _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(gateway.url).port, limit=1)
    request = get(b"/openapi.json")
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(20):
            while True:
                writer.write(request * 100)
                await writer.drain()
    writer.close()
    assert (await gateway.send()).status == 202


async def test_a_client_that_reads_slowly_but_steadily_is_cut_off_only_once_it_stops(gateway: Gateway) -> None:
    clock = Clock(gateway.server.application)
    protocol = connection.Connection(clock)
    transport = Unread(protocol)
    transport.HIGH = 1024  # the first answer alone is far above
    protocol.connection_made(transport)
    protocol.data_received(get(b"/openapi.json") * 10)
    unread = len(transport.kept)
    assert unread > transport.HIGH + 1000
    for _ in range(10):
        clock.now += connection.STALLED_SECONDS / 2
        transport.read(100)
        protocol.sweep()
    assert (len(transport.kept), transport.aborted) == (unread - 1000, False)
    clock.now += connection.STALLED_SECONDS + 1
    protocol.sweep()
    assert transport.aborted
    protocol.connection_lost(None)


async def test_a_stop_answers_what_is_here_and_lets_idle_clients_go(gateway: Gateway) -> None:
    idle, busy, halfway = [await Client.connect(gateway) for _ in range(3)]
    gateway.publisher.gate.clear()
    busy.send(post("a") + post("b"))
    halfway.send(post("c")[:-3])
    await until(lambda: gateway.publisher.calls == 1)
    stop = asyncio.create_task(gateway.server.stop(10))
    assert await idle.closed()
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(gateway)
    busy.send(post("too late"))
    halfway.send(post("c")[-3:] + post("too late"))
    await asyncio.sleep(0.02)
    gateway.publisher.gate.set()
    answers = [await busy.answer(), await busy.answer(), await halfway.answer()]
    assert [status for status, _, _ in answers] == [202, 202, 202]
    assert [headers.get("connection") for _, headers, _ in answers] == [None, "close", "close"]
    await asyncio.wait_for(stop, 5)
    assert sorted(texts(gateway)) == ["a", "b", "c"]


async def test_a_stop_does_not_wait_for_ever(gateway: Gateway) -> None:
    gateway.publisher.gate.clear()
    client = await Client.connect(gateway)
    client.send(post("stuck"))
    await until(lambda: gateway.publisher.calls == 1)
    await asyncio.wait_for(gateway.server.stop(0.1), 5)
    assert await client.closed()
    client.close()


async def test_a_closed_connection_waits_for_no_garbage_collection(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[weakref.ref[connection.Connection]] = []
    monkeypatch.setattr(gateway.server, "opened", lambda made: opened.append(weakref.ref(made)))
    with no_garbage_collection():
        client = await Client.connect(gateway)
        client.send(get(b"/nothing") + get(b"/nothing"))
        assert [(await client.answer())[0] for _ in range(2)] == [404, 404]
        client.close()
        await until(lambda: [kept() for kept in opened] == [None])
