import pytest

from services.api_gateway import neighbours
from services.api_gateway.neighbours import Neighbour


def test_a_failure_is_remembered_until_an_answer_or_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    neighbour = Neighbour("Kafka")
    assert neighbour.missing() is None
    neighbour.failed()
    assert neighbour.missing() is not None
    neighbour.answered()
    assert neighbour.missing() is None
    neighbour.failed()
    monkeypatch.setattr(neighbours, "REMEMBER_SECONDS", -1.0)
    assert neighbour.missing() is None
