"""Stand-ins are written as the events they stand for."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from libs.bus.codec import encode
from libs.bus.quick_events import stand_in
from libs.contracts.events import GatewayReceipt, MessageEvent, ReceiptState

NOW = datetime.now(UTC)
RECEIPT = {"gateway": "g", "provider_id": "1", "state": ReceiptState.DELIVERED, "destination": "2", "observed_at": NOW}


def test_a_stand_in_is_written_like_the_event_itself_defaults_and_order_included() -> None:
    envelope = {"id": "i", "type": "t", "source": "s", "time": NOW, "subject": uuid4()}
    quick = stand_in(MessageEvent)(**envelope, data=stand_in(GatewayReceipt)(**RECEIPT))  # type: ignore[arg-type]
    assert encode(quick) == encode(MessageEvent(**envelope, data=GatewayReceipt(**RECEIPT)))  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"unknown": 1}, {"gateway": ...}])
def test_a_stand_in_takes_the_fields_of_its_event_and_no_others(change: dict[str, object]) -> None:
    fields = {name: value for name, value in (RECEIPT | change).items() if value is not ...}
    with pytest.raises(TypeError):
        stand_in(GatewayReceipt)(**fields)  # type: ignore[arg-type]
