"""What stands for an event is written like it, equals it and passes for it."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

import pytest
from pydantic import Field

from libs.bus.codec import encode
from libs.bus.quick_events import quick
from libs.contracts.events import Event, GatewayReceipt, ReceiptState, Recipient, SmsInbound

NOW = datetime.now(UTC)
RECEIPT: dict[str, Any] = {
    "gateway": "g",
    "provider_id": "1",
    "state": ReceiptState.DELIVERED,
    "destination": "2",
    "observed_at": NOW,
}


ENVELOPE: dict[str, Any] = {"id": "i", "type": "t", "source": "s", "time": NOW, "subject": str(uuid4())}


@pytest.mark.parametrize("more", [{}, {"error": "000", "carrier_time": "2611220908", "reference": 7}])
def test_it_is_written_like_the_event_without_what_has_its_default(more: dict[str, object]) -> None:
    event = Event(**ENVELOPE, data=GatewayReceipt(**RECEIPT | more))
    made = quick(Event[GatewayReceipt])(**ENVELOPE, data=quick(GatewayReceipt)(**RECEIPT | more))
    written = json.loads(encode(event))
    defaults = {"traceparent": None, "datacontenttype": "application/json"}
    assert {name: written.pop(name) for name in defaults} == defaults
    written["data"] = {name: value for name, value in written["data"].items() if value is not None}
    assert json.loads(encode(made)) == written
    assert written["specversion"] == "1.0"  # CloudEvents 1.0 §3: REQUIRED


def test_it_equals_the_event_and_passes_for_it() -> None:
    event = Event(**ENVELOPE, data=GatewayReceipt(**RECEIPT))
    made = quick(Event[GatewayReceipt])(**ENVELOPE, data=quick(GatewayReceipt)(**RECEIPT))
    assert made == event
    assert event == made
    assert isinstance(made, Event)
    assert isinstance(made.data, GatewayReceipt)
    assert not isinstance(made.data, SmsInbound)
    assert made.data.TYPE == GatewayReceipt.TYPE
    assert quick(Event[GatewayReceipt])(**ENVELOPE, data=quick(GatewayReceipt)(**RECEIPT | {"error": "1"})) != event


def test_what_takes_its_fields_by_position_does_so_too() -> None:
    assert quick(Recipient)("client", "17") == Recipient("client", "17")  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"unknown": 1}, {"gateway": ...}])
def test_it_takes_the_fields_of_its_class_and_no_others(change: dict[str, object]) -> None:
    fields: dict[str, Any] = {name: value for name, value in (RECEIPT | change).items() if value is not ...}
    with pytest.raises(TypeError):
        quick(GatewayReceipt)(**fields)


def test_it_can_not_be_changed() -> None:
    made = quick(GatewayReceipt)(**RECEIPT)
    with pytest.raises(AttributeError):
        made.error = "2"  # type: ignore[misc]


def test_a_constraint_that_would_not_be_checked_is_an_error() -> None:
    @dataclass(frozen=True, slots=True)
    class Odd:
        number: Annotated[int, Field(multiple_of=2)]

    with pytest.raises(TypeError, match="multiple_of=2"):
        quick(Odd)
