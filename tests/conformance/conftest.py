import pytest
from pytest import FixtureRequest

from tests.conformance.bus_harness import batches_of_two, bus

__all__ = ["batches_of_two", "bus"]


@pytest.fixture(params=["memory", "kafka"])
def bootstrap(request: FixtureRequest) -> str | None:
    return request.getfixturevalue("kafka") if request.param == "kafka" else None
