from typing import Any

import pytest


@pytest.fixture
async def running(ground: Any) -> Any:
    """The ground of a module's tests, with its program up again after whatever an earlier test did to it."""
    if ground.program.child is None or not ground.program.child.running:
        await ground.program.start()
    return ground
