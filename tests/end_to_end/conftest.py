"""One whole system for all tests here: every service as a process of its own, over a broker of its own."""

import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import yaml

from deploy.local.kafka import SHORT_RUN, Kafka
from deploy.local.run import DEFAULT_CONFIG
from deploy.local.stack import Stack
from tests.conftest import DatabaseFactory
from tests.end_to_end.client import Api, Carrier

STRANGER_KEY = "a-key-of-another-tenant"
READER_KEY = "a-key-that-only-reads"

Reconfigure = Callable[..., Awaitable[None]]


def write_configuration(path: Path, **gateway: object) -> None:
    """The default configuration with these settings of its gateway, and two more callers."""
    configuration = yaml.safe_load(DEFAULT_CONFIG.read_text())
    configuration["gateways"][0].update(gateway)
    [caller] = configuration["apiKeys"]
    stranger, reader = copy.deepcopy(caller), copy.deepcopy(caller)
    stranger.update(name="stranger", tenant="elsewhere", key=STRANGER_KEY)
    reader.update(name="reader", key=READER_KEY, scopes=["sms:read"])
    configuration["apiKeys"] += [stranger, reader]
    path.write_text(yaml.safe_dump(configuration))


@pytest.fixture(scope="package")
async def stack(server_directory: Path, postgres: DatabaseFactory) -> AsyncIterator[Stack]:
    directory = server_directory / "end-to-end"
    directory.mkdir()
    config = directory / "postrider.yaml"
    write_configuration(config)
    async with (
        Kafka(directory / "kafka", java_options=SHORT_RUN) as kafka,
        Stack(config, directory, kafka=kafka.bootstrap_servers, postgres_dsn=await postgres()) as stack,
    ):
        yield stack


@pytest.fixture
async def api(stack: Stack) -> AsyncIterator[Api]:
    async with Api(stack.url, stack.api_key) as api:
        yield api


@pytest.fixture
async def carrier(stack: Stack) -> Carrier:
    carrier = Carrier(stack)
    await carrier.calm()
    return carrier


@pytest.fixture
async def reconfigure(stack: Stack, carrier: Carrier) -> AsyncIterator[Reconfigure]:
    """Start so many dispatchers with these settings of the gateway; afterwards all is as before."""

    async def restart(replicas: int, **gateway: object) -> None:
        await stack.scale("demo", 0)
        write_configuration(stack.config, **gateway)
        await stack.scale("demo", replicas)

    yield restart
    await carrier.calm()
    await restart(1)
