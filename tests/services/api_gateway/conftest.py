from collections.abc import AsyncIterator

import pytest

from tests.services.api_gateway.fakes import Gateway, running_gateway


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as running:
        yield running
