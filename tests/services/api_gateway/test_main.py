"""What the API gateway sees to at its end."""

from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from deploy.local.ports import free_port
from libs.service_kit.config_file import load_configuration
from libs.service_kit.lifecycle import Lifecycle
from services.api_gateway import known_keys, main
from services.api_gateway.settings import ApiGatewaySettings
from tests.conftest import DatabaseFactory
from tests.services.api_gateway.process import API_KEY, configuration, new_tenant

ONE = {"message": "Hello", "clientId": "1"}


@pytest.mark.parametrize(("path", "body"), [("/sms", ONE), ("/sms/bulk", {"messages": [ONE]})], ids=["one", "bulk"])
async def test_a_key_whose_event_is_published_is_marked_before_it_ends(
    kafka: str,
    postgres: DatabaseFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, Any],
) -> None:
    monkeypatch.setattr(known_keys, "MARK_SECONDS", 3600.0)
    dsn, file = await postgres(), configuration(tmp_path, new_tenant())
    settings = ApiGatewaySettings.model_validate(
        {
            "kafka_bootstrap_servers": kafka,
            "ops_port": 0,
            "internal_token": "x" * 16,
            "postgres_dsn": dsn,
            "postrider_config": str(file),
            "api_port": free_port(),
            **dict.fromkeys(("resolver_url", "projection_url", "inbound_url"), "http://127.0.0.1:1"),
        }
    )
    life = Lifecycle(settings)
    try:
        await main.start(life, settings, load_configuration(file, {}))
        headers = {"Authorization": f"Bearer {API_KEY}", "Idempotency-Key": "k"}
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{settings.api_port}", headers=headers) as session,
            session.post(path, json=body) as response,
        ):
            assert response.status == 202
    finally:
        await life.stop_all()
    connection = await asyncpg.connect(dsn)
    try:
        assert await connection.fetch("SELECT event IS NULL AS marked FROM api.idempotency_keys") == [(True,)]
    finally:
        await connection.close()
