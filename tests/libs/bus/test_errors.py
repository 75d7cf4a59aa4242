from libs.bus.dead_letters import reason_of
from libs.bus.errors import BadRecord, Undecodable
from libs.contracts.events import Reason


def test_a_reason_is_the_handlers_own_if_it_gave_one() -> None:
    assert reason_of(BadRecord(Reason("code", "words"))) == Reason("code", "words")
    assert reason_of(Undecodable("JSON is malformed")) == Reason("undecodable", "JSON is malformed")
    assert reason_of(KeyError("x")) == Reason("handler-error", "KeyError")
