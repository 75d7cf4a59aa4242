"""One stack for all that is broken here: two dispatcher replicas, a small window, a carrier that takes its time."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.kafka import SHORT_RUN
from deploy.local.stack import Stack
from tests.faults.records import Reader, reader

REPLICAS = 2
CONFIG = Path(__file__).with_name("gateway.yaml")


@pytest.fixture(scope="package")
async def running(server_directory: Path) -> AsyncIterator[Stack]:
    async with Stack(CONFIG, server_directory / "faults", java_options=SHORT_RUN, say=print) as stack:
        await stack.scale("demo", REPLICAS)
        yield stack


@pytest.fixture
async def stack(running: Stack) -> Stack:
    """The stack, with every process up again after whatever an earlier test did to it."""
    await running.scale("demo", REPLICAS)
    for process in running.processes:
        await process.wait_until_ready()
    return running


@pytest.fixture
async def records(stack: Stack) -> AsyncIterator[Reader]:
    async with reader(stack) as found:
        await found.steer_carrier(responses={"delay_ms": 40}, receipts={"delay_ms": 300, "jitter_ms": 300})
        yield found
