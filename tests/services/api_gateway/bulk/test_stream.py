"""The answer to POST /sms/bulk as it goes out, slice by slice, over sockets."""

import asyncio
import json
import socket
import struct
from typing import Any
from urllib.parse import urlsplit

import pytest

from libs.bus.errors import PublishFailed
from libs.contracts.http.answers import Bulk
from services.api_gateway.bulk.answer import LOST, REPEAT
from services.api_gateway.bulk.batch import CHUNK, CHUNKS_PER_SLICE, SLICE
from tests.services.api_gateway.fakes import ALL_KEY, STEADY_KEY, Gateway
from tests.services.api_gateway.raw_client import Client
from tests.waiting import until

COUNT = 2 * SLICE + 500
GOOD = {"message": "Hello", "clientId": "17"}
BAD = {"message": "Hello"}


def post_bulk(items: list[Any], key: str | None = None, version: str = "1.1", api_key: str = ALL_KEY) -> bytes:
    body = json.dumps({"messages": items}).encode()
    named = f"Idempotency-Key: {key}\r\n" if key is not None else ""
    head = (
        f"POST /sms/bulk HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {api_key}\r\nContent-Type: application/json\r\n"
        f"{named}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class BulkClient(Client):
    """Reads the answer piece by piece."""

    async def chunk(self) -> bytes:
        """Empty: the last."""
        async with asyncio.timeout(10):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def chunks(self) -> list[bytes]:
        found = list[bytes]()
        while piece := await self.chunk():
            found.append(piece)
        return found

    async def whole(self) -> tuple[int, dict[str, str], Any]:
        status, headers, body = await self.answer()
        assert "transfer-encoding" not in headers
        return status, headers, json.loads(body)


def body_of(pieces: list[bytes]) -> Any:
    body = json.loads(b"".join(pieces))
    assert Bulk.model_validate(body).model_dump(mode="json", by_alias=True) == body
    assert [item["index"] for item in body["items"]] == list(range(len(body["items"])))
    return body


def let_slices_through(gateway: Gateway, slices: int) -> None:
    """The next calls that publish them; what comes after waits for the gate."""
    gateway.publisher.let_through = gateway.publisher.calls + slices * CHUNKS_PER_SLICE


async def test_each_slice_is_answered_once_it_is_acknowledged(gateway: Gateway) -> None:
    client = await BulkClient.connect(gateway)
    gateway.publisher.gate.clear()
    let_slices_through(gateway, 1)
    client.send(post_bulk([GOOD] * COUNT) + post_bulk([GOOD]))
    status, headers = await client.head()
    assert (status, headers["transfer-encoding"]) == (202, "chunked")
    assert "content-length" not in headers
    first = await client.chunk()
    assert first.count(b'"accepted"') == SLICE == len(gateway.publisher.records)
    assert gateway.publisher.calls == COUNT // CHUNK
    gateway.publisher.gate.set()
    rest = await client.chunks()
    assert [piece.count(b'"status":"accepted"') for piece in rest] == [SLICE, COUNT - 2 * SLICE]
    body = body_of([first, *rest])
    assert headers["location"] == body["location"]
    assert (body["accepted"], body["rejected"], body["unacknowledged"]) == (COUNT, 0, 0)
    assert [item["id"] for item in body["items"]] == [str(e.subject) for e in gateway.publisher.events[:COUNT]]
    assert (await client.whole())[0] == 202  # the next on the connection, and of one slice: with its length
    client.close()


async def test_until_something_is_acknowledged_an_outage_is_503(gateway: Gateway) -> None:
    """Also after a slice of which nothing is to be accepted."""
    for items in ([GOOD] * COUNT, [BAD] * SLICE + [GOOD] * COUNT):
        gateway.publisher.error = PublishFailed("away")
        gateway.publisher.let_through = gateway.publisher.calls + CHUNKS_PER_SLICE - 1
        client = await BulkClient.connect(gateway)
        client.send(post_bulk(items))
        status, headers, body = await client.whole()
        assert (status, body["status"]) == (503, 503)
        assert int(headers["retry-after"]) > 0
        client.close()


@pytest.mark.parametrize("key", ["b", None])
async def test_what_fails_after_the_answer_began_is_not_called_accepted_and_is_repeated(
    gateway: Gateway, key: str | None
) -> None:
    gateway.publisher.error = PublishFailed("away")
    let_slices_through(gateway, 1)
    items = [GOOD] * (SLICE + 1) + [BAD] + [GOOD] * (COUNT - SLICE - 2)
    client = await BulkClient.connect(gateway)
    client.send(post_bulk(items, key))
    assert (await client.head())[0] == 202
    body = body_of(await client.chunks())
    assert (body["accepted"], body["rejected"], body["unacknowledged"]) == (SLICE, 1, COUNT - SLICE - 1)
    for item in body["items"]:
        if item["index"] < SLICE:
            assert item["status"] == "accepted"
        elif item["index"] != SLICE + 1:
            assert item["errors"] == [{"field": "body", "reason": LOST if key is None else REPEAT}]
            assert "id" not in item
    assert len(gateway.publisher.records) == SLICE
    assert gateway.ledger.marked == []
    gateway.publisher.error = None
    client.send(post_bulk(items, key))
    await client.head()
    again = body_of(await client.chunks())
    assert (again["accepted"], again["rejected"], again["unacknowledged"]) == (COUNT - 1, 1, 0)
    if key is not None:
        assert again["batchId"] == body["batchId"]
        assert again["items"][:SLICE] == body["items"][:SLICE]
        assert gateway.publisher.records[SLICE : 2 * SLICE] == gateway.publisher.records[:SLICE]
    client.close()


async def test_a_repeat_of_a_streamed_answer_is_the_same(gateway: Gateway) -> None:
    items = [GOOD] * (COUNT - 1) + [BAD]
    client = await BulkClient.connect(gateway)
    client.send(post_bulk(items, "b") + post_bulk(items, "b"))
    await client.head()
    body = body_of(await client.chunks())
    assert (await client.whole())[2] == body
    assert len(gateway.publisher.records) == COUNT - 1
    client.close()


async def test_a_client_of_http_1_0_gets_its_answer_whole(gateway: Gateway) -> None:
    client = await BulkClient.connect(gateway)
    client.send(post_bulk([GOOD] * COUNT, version="1.0"))
    status, _, body = await client.whole()
    assert (status, body["accepted"]) == (202, COUNT)
    assert await client.reader.read() == b""
    gateway.publisher.error = PublishFailed("away")
    let_slices_through(gateway, 1)
    client = await BulkClient.connect(gateway)
    client.send(post_bulk([GOOD] * COUNT, version="1.0"))
    assert (await client.whole())[0] == 503


async def test_who_does_not_read_holds_up_nobody_and_loses_nothing(gateway: Gateway) -> None:
    wordy = {f"{n}" + "x" * 95: 1 for n in range(20)}
    items = [GOOD] * COUNT + [wordy] * 5_000
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(gateway.url).port, limit=1)
    writer.write(post_bulk(items, "b"))
    await until(lambda: bool(gateway.ledger.marked))
    assert len(gateway.publisher.records) == COUNT
    assert (await gateway.send()).status == 202
    client = BulkClient(reader, writer)
    reader._limit = 1 << 20  # type: ignore[attr-defined] - from here on it reads
    assert (await client.head())[0] == 202
    body = body_of(await client.chunks())
    assert (body["accepted"], body["rejected"]) == (COUNT, 5_000)
    client.close()


@pytest.mark.parametrize("way", ["closed", "reset"])
async def test_what_was_asked_is_accepted_though_the_client_is_gone(gateway: Gateway, way: str) -> None:
    gateway.publisher.gate.clear()
    let_slices_through(gateway, 1)
    client = await BulkClient.connect(gateway)
    client.send(post_bulk([GOOD] * COUNT, "b"))
    first = await client.chunk() if (await client.head())[0] == 202 else b""
    if way == "reset":
        reset = struct.pack("ii", 1, 0)
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    client.writer.transport.abort()
    assert (await gateway.ask("GET", "/openapi.json")).status == 200  # by then the gateway knows
    gateway.publisher.gate.set()
    await until(lambda: bool(gateway.ledger.marked))
    assert len(gateway.publisher.records) == COUNT
    client = await BulkClient.connect(gateway)
    client.send(post_bulk([GOOD] * COUNT, "b"))
    _, _, body = await client.whole()
    assert json.loads(first + b"]}")["items"] == body["items"][:SLICE]
    client.close()


async def test_a_fault_of_ours_after_the_answer_began_breaks_it_off(gateway: Gateway) -> None:
    gateway.publisher.error = RuntimeError("a fault")
    let_slices_through(gateway, 1)
    client = await BulkClient.connect(gateway)
    client.send(post_bulk([GOOD] * COUNT))
    assert (await client.head())[0] == 202
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.chunks()
    gateway.publisher.error = None
    assert (await gateway.send()).status == 202


async def test_of_calls_let_in_at_once_those_behind_a_large_one_are_told_to_wait(gateway: Gateway) -> None:
    """By their heads nobody knows yet how much they bring."""
    head, _, body = post_bulk([GOOD] * 500, api_key=STEADY_KEY).partition(b"\r\n\r\n")
    clients = [await BulkClient.connect(gateway) for _ in range(2)]
    for client in clients:
        client.send(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.head())[0] == 100
    answers = list[tuple[int, dict[str, str], Any]]()
    for client in clients:
        client.send(body)
        answers.append(await client.whole())
        client.close()
    assert [status for status, _, _ in answers] == [202, 429]
    assert 50 < int(answers[1][1]["retry-after"]) <= 100  # 500 at five a second, less what the test took
    assert len(gateway.publisher.records) == 500


async def test_a_stop_lets_a_streamed_answer_end(gateway: Gateway) -> None:
    gateway.publisher.gate.clear()
    let_slices_through(gateway, 1)
    client = await BulkClient.connect(gateway)
    client.send(post_bulk([GOOD] * COUNT))
    await client.head()
    first = await client.chunk()
    stop = asyncio.create_task(gateway.server.stop(10))
    await asyncio.sleep(0)
    gateway.publisher.gate.set()
    assert body_of([first, *await client.chunks()])["accepted"] == COUNT
    assert await client.reader.read() == b""
    await asyncio.wait_for(stop, 5)
