"""What is no HTTP, or no whole request, is answered as a problem, or not accepted."""

import asyncio
from urllib.parse import urlsplit

import pytest

from tests.services.api_gateway.fakes import SEND_KEY, Gateway

SECRET = "Zq-secret-Zq"


@pytest.mark.parametrize(
    "sent",
    [
        b"Zq-secret-Zq\r\n\r\n",
        b"GET /sms HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"POST /sms HTTP/1.1\r\nHost: x\r\nContent-Length: Zq-secret-Zq\r\n\r\n",
        b"GET /sms HTTP/1.1\r\nHost: x\r\nZq-secret-Zq\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_problem_too(
    gateway: Gateway, sent: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = await _raw(gateway, sent)
    assert reply.split()[1] == b"400"
    assert b"application/problem+json" in reply
    assert SECRET.encode() not in reply
    assert SECRET not in "".join(capsys.readouterr())
    assert (await gateway.send()).status == 202


async def test_a_body_that_ends_early_is_not_accepted(gateway: Gateway) -> None:
    await _raw(gateway, _post(b'{"message": "Hel', length=1000), half_close=True)
    assert gateway.publisher.records == []
    assert (await gateway.send()).status == 202


async def test_a_client_that_waits_for_continue_is_told_to(gateway: Gateway) -> None:
    body = b'{"message": "Hello", "clientId": "1"}'
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(gateway.url).port)
    head, _, _ = _post(b"", length=len(body)).partition(b"\r\n\r\n")
    writer.write(head + b"\r\nExpect: 100-continue\r\n\r\n")
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 100")
    writer.write(body)
    assert b"HTTP/1.1 202" in await asyncio.wait_for(reader.read(), 5)
    writer.close()


async def test_an_unknown_expectation_is_a_problem(gateway: Gateway) -> None:
    head, _, _ = _post(b"", length=2).partition(b"\r\n\r\n")
    reply = await _raw(gateway, head + b"\r\nExpect: Zq-secret-Zq\r\n\r\n{}")
    assert reply.startswith(b"HTTP/1.1 417 ")
    assert b"application/problem+json" in reply
    assert SECRET.encode() not in reply


async def test_two_idempotency_keys_are_refused(gateway: Gateway) -> None:
    reply = await _raw(
        gateway,
        b"POST /sms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + SEND_KEY.encode() + b"\r\nIdempotency-Key: a\r\n"
        b"Idempotency-Key: b\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    )
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert b"more than once" in reply


def _post(body: bytes, length: int) -> bytes:
    return (
        b"POST /sms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + SEND_KEY.encode() + b"\r\n"
        b"Content-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (length, body)
    )


async def _raw(gateway: Gateway, sent: bytes, half_close: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(gateway.url).port)
    writer.write(sent)
    if half_close:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
