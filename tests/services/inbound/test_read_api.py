"""The internal HTTP, on a real PostgreSQL."""

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from libs.contracts.http.answers import Problem
from libs.service_kit.internal import TENANT_HEADER
from libs.storage.database import Pool
from services.inbound.read_api import Inbox, ReadApi


async def test_a_search_that_takes_too_long_is_called_off(pool: Pool) -> None:
    api = ReadApi()
    api.inbox = Inbox(pool, read_seconds=0.2)
    app = web.Application()
    app.router.add_routes(api.routes())
    async with TestClient(TestServer(app)) as impatient, pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE parts")
        async with impatient.get("/internal/inbound?gateway=rare", headers={TENANT_HEADER: "demo"}) as response:
            answer = Problem.model_validate_json(await response.read())
    assert (response.status, "Retry-After" in response.headers) == (503, True)
    assert "narrow" in (answer.detail or "")
