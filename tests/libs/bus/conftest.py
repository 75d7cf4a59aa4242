"""The bus over a real broker, unless a module says otherwise with a `bootstrap` of its own."""

import pytest

from tests.conformance.bus_harness import bus

__all__ = ["bus"]


@pytest.fixture
def bootstrap(kafka: str) -> str:
    return kafka
