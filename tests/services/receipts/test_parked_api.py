"""What is said of parked receipts when PostgreSQL is not there; what is shown of them is in test_main.py."""

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from services.receipts.parked_api import ParkedApi


class Away:
    def acquire(self) -> Any:
        raise ConnectionRefusedError


@pytest.mark.parametrize("pool", [None, Away()])
async def test_while_postgres_is_away_that_is_said(pool: Any) -> None:
    api, app = ParkedApi(), web.Application()
    api.pool = pool
    app.add_routes(api.routes())
    async with TestClient(TestServer(app)) as client, client.get("/internal/parked") as answer:
        assert (answer.status, (await answer.text()).startswith("PostgreSQL")) == (503, True)
