"""That the API gateway, as a process, does as its environment says: where it listens, whom it asks and for how long, what it allows."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from libs.contracts.statuses import Status
from libs.service_kit.settings import load_settings
from services.api_gateway.settings import ApiGatewaySettings
from tests.conftest import DatabaseFactory
from tests.services.api_gateway.fakes import FakeUpstream
from tests.services.api_gateway.process import API_KEY, gateway_process, new_tenant
from tests.services.api_gateway.test_commands import ID, shown


async def test_the_gateway_does_as_its_settings_say(kafka: str, postgres: DatabaseFactory, tmp_path: Path) -> None:
    async with FakeUpstream().running() as resolver, FakeUpstream().running() as projection:
        told = {
            "API_HOST": "127.0.0.2",
            "RESOLVER_URL": resolver.url,
            "PROJECTION_URL": projection.url,
            "FORWARD_TIMEOUT_SECONDS": "1",
            "ACCEPT_TIMEOUT_SECONDS": "30",
            "MAX_RESENDS": "1",
        }
        async with gateway_process(tmp_path, kafka, await postgres(), new_tenant(), **told) as process:
            await process.ready()
            with pytest.raises(aiohttp.ClientConnectorError):
                await process.send()
            process.url = process.url.replace("127.0.0.1", "127.0.0.2")
            assert (await process.send()).status == 202

            for cycles, status in ((1, 202), (2, 409)):
                projection.body = shown(Status.FAILED, cycles).model_dump_json(by_alias=True).encode()
                assert (await process.post(f"/sms/{ID}/resend")).status == status

            headers = {"Authorization": f"Bearer {API_KEY}"}
            async with process.session.put(f"{process.url}/clients/17", json={"phone": "1"}, headers=headers):
                assert [asked.path for asked in resolver.asked] == ["/internal/clients/17"]
            projection.gate.clear()
            try:
                async with asyncio.timeout(20), process.session.get(f"{process.url}/sms/{ID}", headers=headers) as late:
                    assert late.status == 503
            finally:
                projection.gate.set()


def test_an_empty_address_is_not_taken_for_every_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("API_HOST", "")
    with pytest.raises(SystemExit):
        load_settings(ApiGatewaySettings)
    assert "  API_HOST: String should have at least 1 character" in capsys.readouterr().err.splitlines()
