"""A carrier in this process, on free ports, and peers that talk to it over TCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from libs.smpp.pdus import BindType
from services.simulated_carrier.carrier import Carrier
from services.simulated_carrier.http import make_application
from services.simulated_carrier.ledger import Ledger, LedgerEntry, read_ledger
from services.simulated_carrier.settings import CarrierSettings
from tests.services.simulated_carrier.raw_client import RawClient


@dataclass
class RunningCarrier:
    carrier: Carrier
    port: int
    http: TestClient[Any, Any]
    directory: Path
    clients: list[RawClient]

    async def connect(self) -> RawClient:
        _, client = await asyncio.get_running_loop().create_connection(RawClient, "127.0.0.1", self.port)
        self.clients.append(client)
        return client

    async def bound(self, system_id: str = "demo", bind_type: BindType = BindType.TRANSCEIVER) -> RawClient:
        client = await self.connect()
        assert (await client.bind(system_id, bind_type)).command_status == 0
        return client

    async def steer(self, **sections: dict[str, object]) -> None:
        async with self.http.patch("/behaviour", json=sections) as response:
            assert response.status == 200, await response.text()

    async def get(self, path: str) -> Any:
        async with self.http.get(path) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    def entries(self) -> list[LedgerEntry]:
        return list(read_ledger(self.directory))


StartCarrier = Callable[..., Awaitable[RunningCarrier]]


@pytest.fixture
async def start_carrier(tmp_path: Path) -> AsyncIterator[StartCarrier]:
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> RunningCarrier:
            directory = settings.pop("ledger_directory", tmp_path / "ledger")
            ledger = Ledger(directory)
            stack.callback(ledger.close)
            carrier = Carrier(CarrierSettings(smpp_port=0, http_port=0, ledger_directory=directory, **settings), ledger)
            port = await carrier.start()
            stack.push_async_callback(carrier.stop)
            http = await stack.enter_async_context(TestClient(TestServer(make_application(carrier))))
            running = RunningCarrier(carrier, port, http, directory, [])
            stack.callback(lambda: [client.transport.abort() for client in running.clients])
            return running

        yield start


@pytest.fixture
async def carrier(start_carrier: StartCarrier) -> RunningCarrier:
    return await start_carrier()
