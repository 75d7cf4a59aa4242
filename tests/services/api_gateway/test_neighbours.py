import pytest

from libs.service_kit.problems import ProblemError
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


def test_only_its_absence_is_called_that_and_a_fault_of_ours_stays_one() -> None:
    neighbour = Neighbour("Postgres")
    with pytest.raises(ZeroDivisionError), neighbour.needed("ask again"):
        raise ZeroDivisionError
    assert neighbour.missing() is None
    with pytest.raises(ProblemError) as raised, neighbour.needed("ask again"):
        raise ConnectionRefusedError
    assert (raised.value.problem.status, raised.value.problem.detail) == (503, "ask again")
    assert neighbour.missing() is not None
