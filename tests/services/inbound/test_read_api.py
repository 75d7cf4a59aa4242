"""The internal HTTP, on a real PostgreSQL."""

from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from libs.contracts.http.answers import InboundPage, Problem
from libs.service_kit.internal import TENANT_HEADER
from libs.service_kit.pages import cursor_after
from libs.storage.database import Pool
from services.inbound.handlers import take
from services.inbound.read_api import Inbox, ReadApi
from services.inbound.store import store
from tests.services.held_up import held_up
from tests.services.inbound.examples import SENDER, SOURCE, event


@pytest.mark.parametrize(
    ("number", "sender"),
    [
        ("%2B254700000017", SENDER),
        ("+254700000017", SENDER),
        ("254700000017", SENDER),
        ("0700000017", SENDER),
        ("40404", "40404"),
        ("BANK", "BANK"),
        ("18", None),
    ],
)
async def test_a_sender_is_found_in_any_form_of_its_number(pool: Pool, number: str, sender: str | None) -> None:
    events = [event(source=source) for source in (SOURCE, "40404", "BANK")]
    await store(pool, take(events, lambda _: "demo", "KE"))
    api = ReadApi()
    api.inbox = Inbox(pool, read_seconds=5, default_region="KE")
    app = web.Application()
    app.router.add_routes(api.routes())
    address = URL(f"/internal/inbound?number={number}", encoded=True)
    async with (
        TestClient(TestServer(app)) as client,
        client.get(address, headers={TENANT_HEADER: "demo"}) as response,
    ):
        page = InboundPage.model_validate_json(await response.read())
    assert [message.source for message in page.items] == ([sender] if sender else [])


@pytest.mark.parametrize(
    ("query", "rare"),
    [("?gateway=rare", True), ("", False), (f"?limit=5&cursor={cursor_after(UUID(int=1))}", False)],
)
async def test_a_search_that_takes_too_long_is_called_off(pool: Pool, query: str, rare: bool) -> None:
    api = ReadApi()
    api.inbox = Inbox(pool, read_seconds=0.2, default_region=None)
    app = web.Application()
    app.router.add_routes(api.routes())
    async with TestClient(TestServer(app)) as impatient, pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE parts")
        async with impatient.get(f"/internal/inbound{query}", headers={TENANT_HEADER: "demo"}) as response:
            answer = Problem.model_validate_json(await response.read())
    assert (response.status, "Retry-After" in response.headers) == (503, True)
    assert ("narrow" in (answer.detail or "")) is rare


@pytest.mark.parametrize("path", ["", f"/{UUID(int=1)}"])
async def test_the_wait_for_a_connection_and_for_its_answers_is_bounded_as_one(pool: Pool, path: str) -> None:
    api = ReadApi()
    api.inbox = Inbox(pool, read_seconds=0.5, default_region=None)
    app = web.Application()
    app.router.add_routes(api.routes())
    async with (
        TestClient(TestServer(app)) as impatient,
        held_up(pool, "parts", 0.45),
        impatient.get(f"/internal/inbound{path}", headers={TENANT_HEADER: "demo"}) as response,
    ):
        assert response.status == 503
