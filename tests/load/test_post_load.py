"""The load generator against a small server of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.load.post_load import LOST, Load, run, to_clients

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
ID = "019b30cb-7a50-7a55-9d3e-2b1f0c8e7a41"


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def accepted() -> web.Response:
    return web.Response(status=202, body=b'{"id":"%b","number":1}' % ID.encode())


@pytest.mark.parametrize("pipeline", [1, 4])
async def test_every_message_is_sent_once_with_its_own_key(pipeline: int) -> None:
    seen: list[tuple[str, str, bytes]] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        seen.append((request.headers["Authorization"], request.headers["Idempotency-Key"], body))
        return accepted()

    async with server(handle) as url:
        load = Load(
            url=url,
            api_key="k",
            messages=250,
            body=to_clients(7, "Hi"),
            connections=8,
            pipeline=pipeline,
            keys="a-",
        )
        result = await run(load)
    assert result.statuses == {202: 250}
    assert {key for _, key, _ in seen} == {f"a-{n}" for n in range(250)}
    assert {auth for auth, _, _ in seen} == {"Bearer k"}
    assert len({body for _, _, body in seen}) == 7
    assert result.ids == [ID] * 250
    assert len(result.latencies) == 250
    assert result.per_second > 0


async def test_a_rate_is_kept_and_latency_counts_from_when_a_request_was_due() -> None:
    async def slow(request: web.BaseRequest) -> web.Response:
        await request.read()
        await asyncio.sleep(0.05)
        return accepted()

    async with server(slow) as url:
        # One connection can do 20/s: of 10 requests due within 0.1 s, the last waits for all those before it.
        result = await run(Load(url=url, api_key="k", messages=10, connections=1, rate=100))
    assert result.seconds >= 0.45
    assert result.percentile(99) >= 0.35


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
        result = await run(Load(url=url, api_key="k", messages=20, connections=2))
    assert result.statuses.total() == 20
    assert result.statuses[503] == 3
    assert result.statuses[202] == 3
    assert result.statuses[LOST] == 14
    assert "lost: 14" in str(result)
