"""The bus over a real broker, unless a module says otherwise with a `bootstrap` of its own."""

import pytest

from tests.conformance.bus_harness import batches_of_two, bus

__all__ = ["batches_of_two", "bus"]


@pytest.fixture
def bootstrap(kafka: str) -> str:
    return kafka
