"""The load generator against a small server of its own."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.load.load_process import load_processes
from tests.load.post_load import LOST, SAMPLE, Load, run
from tests.load.workload import Workload, number_in

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
ID = "019b30cb-7a50-7a55-9d3e-2b1f0c8e7a41"


def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    return web.BaseRequest(
        message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=1 << 30
    )


@asynccontextmanager
async def server(handler: Handler) -> AsyncGenerator[str]:
    runner = web.ServerRunner(web.Server(handler, request_factory=request))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def accepted() -> web.Response:
    return web.Response(status=202, body=b'{"id":"%b","number":1}' % ID.encode())


def load(url: str, messages: int, *, bulk: int | None = None, **more: Any) -> Load:
    return Load(url=url, api_key="k", work=Workload(messages=messages, bulk=bulk), **more)


@pytest.mark.parametrize("pipeline", [1, 4])
async def test_every_message_is_sent_once_with_its_own_key(pipeline: int) -> None:
    seen: list[tuple[str, str, dict[str, str]]] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        body = await request.json()
        seen.append((request.headers["Authorization"], request.headers["Idempotency-Key"], body))
        return accepted()

    async with server(handle) as url:
        result = await asyncio.to_thread(run, load(url, 250, connections=8, pipeline=pipeline, keys="a-"))
    assert result.statuses == {202: 250}
    assert {key for _, key, _ in seen} == {f"a-{n}" for n in range(250)}
    assert {auth for auth, _, _ in seen} == {"Bearer k"}
    assert sorted(number_in(body["message"].encode()) for _, _, body in seen) == list(range(1, 251))
    assert all(int(body["clientId"]) == number_in(body["message"].encode()) for _, _, body in seen)
    assert result.ids and set(result.ids) == {ID} and len(result.ids) <= 2 * SAMPLE
    assert len(result.latencies) == 250
    assert result.per_second > 0


async def test_a_bulk_carries_its_share_and_a_streamed_answer_is_read_to_its_end() -> None:
    sizes: list[int] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        sizes.append(len((await request.json())["messages"]))
        response = web.StreamResponse(status=202)
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(3):
            await response.write(b"x" * 1000)
            await asyncio.sleep(0.001)
        await response.write_eof()
        return response

    async with server(handle) as url:
        result = await asyncio.to_thread(run, load(url, 2_500, bulk=400, connections=2, pipeline=2))
    assert sorted(sizes) == [100, *[400] * 6]
    assert result.statuses == {202: 7}
    assert result.per_second * result.seconds == pytest.approx(2_500)


async def test_a_request_that_the_peer_is_slow_to_take_arrives_whole() -> None:
    sizes: list[int] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(0.05)
        sizes.append(len(await request.read()))
        return accepted()

    async with server(handle) as url:
        result = await asyncio.to_thread(run, load(url, 400_000, bulk=100_000, connections=1, pipeline=2))
    assert result.statuses == {202: 4}
    assert all(size > 10_000_000 for size in sizes)


async def test_a_rate_is_kept_and_latency_counts_from_when_a_request_was_due() -> None:
    async def slow(request: web.BaseRequest) -> web.Response:
        await request.read()
        await asyncio.sleep(0.05)
        return accepted()

    async with server(slow) as url:
        # One connection can do 20/s: of 10 requests due within 0.1 s, the last waits for all those before it.
        result = await asyncio.to_thread(run, load(url, 10, connections=1, pipeline=1, rate=100))
    assert result.seconds >= 0.45
    assert max(result.latencies) >= 0.35


async def test_refusals_and_lost_answers_are_counted() -> None:
    count = 0

    async def flaky(request: web.BaseRequest) -> web.Response:
        nonlocal count
        await request.read()
        count += 1
        if count > 6:
            assert request.transport is not None
            request.transport.close()
        return web.Response(status=503) if count % 2 else accepted()

    async with server(flaky) as url:
        result = await asyncio.to_thread(run, load(url, 20, connections=2, pipeline=1))
    assert sum(result.statuses.values()) == 20
    assert result.statuses[503] == 3
    assert result.statuses[202] == 3
    assert result.statuses[LOST] == 14
    assert "lost: 14" in str(result)


async def test_a_process_of_its_own_sends_the_same() -> None:
    async def handle(request: web.BaseRequest) -> web.Response:
        await request.read()
        return accepted()

    async with server(handle) as url, load_processes([load(url, 50), load(url, 30)]) as processes:
        results = await asyncio.gather(*(process.run() for process in processes))
    assert [result.statuses for result in results] == [{202: 50}, {202: 30}]
    assert all(result.cpu_seconds > 0 for result in results)
