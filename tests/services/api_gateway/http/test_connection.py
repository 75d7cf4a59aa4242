"""HTTP/1.1 as a client may speak it: over sockets, byte by byte."""

import asyncio
import json

import pytest

from services.api_gateway.http import connection
from services.api_gateway.http.calls import MAX_BODY_BYTES
from tests.services.api_gateway.fakes import ALL_KEY, Gateway
from tests.services.api_gateway.raw_client import HEADERS, Client, Unread, get, post, texts
from tests.waiting import until


async def test_pipelined_messages_are_published_together_and_answered_in_order(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    gateway.publisher.gate.clear()
    client.send(post("0"))
    await until(lambda: gateway.publisher.calls == 1)
    client.send(b"".join(post(str(n)) for n in range(1, 10)))
    await asyncio.sleep(0.05)
    gateway.publisher.gate.set()
    ids = [json.loads((await client.answer())[2])["id"] for _ in range(10)]
    assert ids == [str(event.subject) for event in gateway.publisher.events]
    assert texts(gateway) == [str(n) for n in range(10)]
    assert gateway.publisher.calls == 2
    client.close()


async def test_other_pipelined_requests_wait_for_those_before_them(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    gateway.publisher.gate.clear()
    client.send(post("a") + get(b"/clients/1") + get(b"/nothing") + post("b"))
    await until(lambda: gateway.publisher.calls == 1)
    await asyncio.sleep(0.05)
    assert gateway.resolver.asked == []
    gateway.resolver.gate.clear()
    gateway.publisher.gate.set()
    await until(lambda: gateway.resolver.asked != [])
    await asyncio.sleep(0.05)
    assert texts(gateway) == ["a"]
    gateway.resolver.gate.set()
    assert [(await client.answer())[0] for _ in range(4)] == [202, 200, 404, 202]
    client.close()


async def test_more_pipelined_requests_than_are_read_at_once_are_all_answered(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    gateway.publisher.gate.clear()
    count = 5 * connection.MAX_PIPELINED
    for n in range(count):
        client.send(post(str(n)))
        if n % 50 == 0:
            await asyncio.sleep(0.001)
    await until(lambda: gateway.publisher.calls == 1)
    gateway.publisher.gate.set()
    assert [(await client.answer())[0] for _ in range(count)] == [202] * count
    assert texts(gateway) == [str(n) for n in range(count)]
    client.close()


async def test_no_more_is_read_while_as_many_wait_as_may_be_pipelined(gateway: Gateway) -> None:
    gateway.publisher.gate.clear()
    protocol, transport = connection.Connection(gateway.server), Unread(asyncio.Protocol())
    protocol.connection_made(transport)
    protocol.data_received(post("a") * (connection.MAX_PIPELINED - 1))
    assert transport.reading
    protocol.data_received(post("a"))
    assert not transport.reading
    gateway.publisher.gate.set()
    await until(lambda: transport.kept.count(b"HTTP/1.1 202 ") == connection.MAX_PIPELINED)
    assert transport.reading
    protocol.connection_lost(None)


async def test_a_request_may_come_byte_by_byte(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    for byte in post("slow"):
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.answer())[0] == 202
    assert texts(gateway) == ["slow"]
    client.close()


async def test_a_chunked_body_is_taken_and_its_trailers_are_nobodys_headers(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    body = b'{"message": "in chunks", "clientId": "1"}'
    chunks = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n" % (5, body[:5], len(body) - 5, body[5:])
    head = b"POST /sms HTTP/1.1\r\n" + HEADERS + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(head + chunks + b"Idempotency-Key: " + b"x" * 256 + b"\r\n\r\n" + post("next"))
    assert [(await client.answer())[0] for _ in range(2)] == [202, 202]
    assert texts(gateway) == ["in chunks", "next"]
    client.close()


@pytest.mark.parametrize(("more", "status"), [(0, 202), (1, 413)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_may_be_as_long_as_is_said_and_no_longer(
    gateway: Gateway, chunked: bool, more: int, status: int
) -> None:
    client = await Client.connect(gateway)
    body = b'{"message": "long", "clientId": "1"}'.ljust(MAX_BODY_BYTES + more)
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    head = b"POST /sms HTTP/1.1\r\n" + HEADERS + b"Content-Type: application/json\r\n" + framing + b"\r\n\r\n"
    client.send(head + (b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body))
    assert (await client.answer())[0] == status
    client.close()


async def test_a_wish_to_upgrade_is_not_heard_and_the_request_is_served(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    client.send(post("upgrade", b"Connection: Upgrade\r\nUpgrade: h2c\r\n") + post("next"))
    assert [(await client.answer())[0] for _ in range(2)] == [202, 202]
    assert texts(gateway) == ["upgrade", "next"]
    client.close()


async def test_nor_is_it_on_a_connection_that_is_to_be_closed(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    client.send(post("upgrade", b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n") + post("beyond"))
    status, headers, _ = await client.answer()
    assert (status, headers["connection"]) == (202, "close")
    assert await client.closed()
    assert texts(gateway) == ["upgrade"]


@pytest.mark.parametrize("cut", [-1, -36, -100])
async def test_any_number_of_pipelined_wishes_to_upgrade_is_not_heard(gateway: Gateway, cut: int) -> None:
    wish = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    requests = get(b"/nothing", wish) * 2000 + post("last", wish)
    protocol, transport = connection.Connection(gateway.server), Unread(asyncio.Protocol())
    protocol.connection_made(transport)
    protocol.data_received(requests[:cut])
    protocol.data_received(requests[cut:])
    await until(lambda: transport.kept.count(b"HTTP/1.1 ") == 2001)
    assert [transport.kept.count(b"HTTP/1.1 %d " % status) for status in (404, 202)] == [2000, 1]
    protocol.connection_lost(None)


async def test_what_is_given_twice_is_known_beside_a_wish_to_upgrade_too(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    wish = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    client.send(post("two keys", wish + b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n"))
    client.send(post("one key", b"Idempotency-Key: a\r\n"))
    status, _, body = await client.answer()
    assert (status, b"Idempotency-Key: is given more than once" in body) == (400, True)
    assert (await client.answer())[0] == 202
    assert texts(gateway) == ["one key"]
    client.close()


@pytest.mark.parametrize("more", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"])
async def test_nobody_can_tunnel(gateway: Gateway, more: bytes) -> None:
    client = await Client.connect(gateway)
    client.send(b"CONNECT other:443 HTTP/1.1\r\nHost: other\r\n" + more + b"\r\n" + post("through"))
    assert (await client.answer())[0] == 400
    assert await client.closed()
    assert texts(gateway) == []


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (post("a", b"Connection: close\r\n"), "close"),
        (post("a", version=b"1.0"), "close"),
        (post("a", b"Connection: keep-alive\r\n", b"1.0"), "keep-alive"),
        (post("a"), None),
    ],
)
async def test_the_connection_is_kept_as_the_client_wishes(gateway: Gateway, sent: bytes, said: str | None) -> None:
    client = await Client.connect(gateway)
    client.send(sent)
    status, headers, _ = await client.answer()
    assert (status, headers.get("connection")) == (202, said)
    assert "gmt" in headers["date"]
    if said == "close":
        assert await client.closed()
    else:
        client.send(post("again"))
        assert (await client.answer())[0] == 202
    client.close()


async def test_what_follows_a_last_request_is_not_served(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    client.send(post("last", b"Connection: close\r\n") + post("beyond"))
    assert (await client.answer())[0] == 202
    assert await client.closed()
    assert texts(gateway) == ["last"]


async def test_to_head_the_body_is_only_described(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    client.send(get(b"/openapi.json", method=b"HEAD") + get(b"/asyncapi.json"))
    status, headers, _ = await client.answer(bodyless=True)
    assert status == 405
    assert int(headers["content-length"]) > 0
    assert (await client.answer())[0] == 200
    client.close()


async def test_a_whole_url_is_a_target_too(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    client.send(get(b"http://elsewhere/sms?tag=a&limit=1") + get(b"http://elsewhere"))
    assert [(await client.answer())[0] for _ in range(2)] == [200, 404]
    assert [(asked.path, asked.query) for asked in gateway.projection.asked] == [
        ("/internal/sms", {"tag": "a", "limit": "1"})
    ]
    client.close()


async def test_a_refused_request_leaves_the_connection_usable(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    stranger = post("no").replace(ALL_KEY.encode(), b"wrong")
    client.send(stranger[:-5])
    assert (await client.answer())[0] == 401  # by the head alone
    client.send(stranger[-5:] + post("yes"))
    assert (await client.answer())[0] == 202
    assert texts(gateway) == ["yes"]
    client.close()


async def test_to_continue_is_said_in_its_turn(gateway: Gateway) -> None:
    gateway.publisher.gate.clear()
    protocol, transport = connection.Connection(gateway.server), Unread(asyncio.Protocol())
    protocol.connection_made(transport)
    sent = post("b", b"Expect: 100-Continue\r\n")
    head = sent.index(b"\r\n\r\n") + 4
    protocol.data_received(post("a") + sent[:head])
    assert transport.kept == b""
    gateway.publisher.gate.set()
    await until(lambda: transport.kept.endswith(b"HTTP/1.1 100 Continue\r\n\r\n"))
    assert transport.kept.startswith(b"HTTP/1.1 202 ")
    protocol.data_received(sent[head:])
    await until(lambda: transport.kept.count(b"HTTP/1.1 202 ") == 2)
    protocol.connection_lost(None)


async def test_http_1_0_is_never_told_to_continue(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    client.send(post("old", b"Expect: 100-continue\r\n", b"1.0"))
    assert (await client.answer())[0] == 202
    assert await client.closed()


@pytest.mark.parametrize(
    "hosts", [b"", b"Host: x\r\nHost: x\r\n", b"Host: x\r\nHost: y\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"]
)
async def test_a_request_names_one_host(gateway: Gateway, hosts: bytes) -> None:
    client = await Client.connect(gateway)
    client.send(post("to whom", hosts).replace(HEADERS, HEADERS.removeprefix(b"Host: x\r\n")) + post("beyond"))
    status, headers, body = await client.answer()
    assert (status, headers["connection"], b"Host" in body) == (400, "close", True)
    assert await client.closed()
    assert texts(gateway) == []


async def test_it_may_be_an_empty_one_and_http_1_0_need_not_name_it(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    client.send(post("nobody").replace(b"Host: x", b"Host:"))
    client.send(post("old", version=b"1.0").replace(b"Host: x\r\n", b""))
    assert [(await client.answer())[0] for _ in range(2)] == [202, 202]
    client.close()


async def test_a_refused_request_that_waits_for_continue_is_the_last(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    stranger = post("no", b"Expect: 100-continue\r\n").replace(ALL_KEY.encode(), b"wrong")
    client.send(stranger.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    status, headers, _ = await client.answer()
    assert (status, headers["connection"]) == (401, "close")
    client.send(post("smuggled"))
    assert await client.closed()
    assert texts(gateway) == []


@pytest.mark.parametrize(
    "framing",
    [
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: +5\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Content-Length : 5\r\n",
    ],
)
async def test_a_body_whose_length_is_in_doubt_is_refused(gateway: Gateway, framing: bytes) -> None:
    client = await Client.connect(gateway)
    client.send(b"POST /sms HTTP/1.1\r\n" + HEADERS + framing + b"\r\n0\r\n\r\n" + post("smuggled"))
    assert (await client.answer())[0] == 400
    assert await client.closed()
    assert texts(gateway) == []


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
async def test_a_body_in_broken_chunks_is_refused(gateway: Gateway, more: bytes) -> None:
    client = await Client.connect(gateway)
    head = b"POST /sms HTTP/1.1\r\n" + HEADERS + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    client.send(head + more + b"\r\n2\r\n{}\r\nno length\r\n")
    assert (await client.answer())[0] == 400
    assert await client.closed()


async def test_pipelined_requests_may_be_cut_anywhere(gateway: Gateway) -> None:
    requests = b"".join(post(str(n)) for n in range(100))
    cut = len(post("0")) - 60
    protocol, transport = connection.Connection(gateway.server), Unread(asyncio.Protocol())
    protocol.connection_made(transport)
    for part in (requests[:cut], requests[cut:-60], requests[-60:]):  # both times in the middle of the same header
        protocol.data_received(part)
    await until(lambda: transport.kept.count(b"HTTP/1.1 ") == 100)
    assert transport.kept.count(b"HTTP/1.1 202 ") == 100
    protocol.connection_lost(None)


async def test_compressed_bodies_are_refused(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    client.send(post("a", b"Content-Encoding: gzip\r\n"))
    status, headers, _ = await client.answer()
    assert (status, headers["accept-encoding"]) == (415, "identity")
    client.close()


async def test_a_client_that_has_said_all_is_answered(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    client.send(post("a") + post("b"))
    client.end()
    assert [(await client.answer())[0] for _ in range(2)] == [202, 202]
    assert await client.closed()
