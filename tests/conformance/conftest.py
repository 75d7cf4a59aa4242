from collections.abc import AsyncIterator

import pytest
from pytest import FixtureRequest

from tests.conformance.bus_harness import Harness, open_harness


@pytest.fixture(params=["memory", "kafka"])
def bootstrap(request: FixtureRequest) -> str | None:
    return request.getfixturevalue("kafka") if request.param == "kafka" else None


@pytest.fixture
async def bus(bootstrap: str | None) -> AsyncIterator[Harness]:
    harness = await open_harness(bootstrap)
    yield harness
    await harness.close()
