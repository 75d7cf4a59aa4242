"""What a provider brings on its own, as it stands in Kafka. No server takes part."""

from datetime import UTC, datetime

import pytest

from libs.bus.codec import decoder_for
from libs.bus.errors import PublishFailed
from libs.bus.memory import MemoryBus
from libs.contracts import topics
from libs.contracts.events import Event, GatewayReceipt, ReceiptState, SmsInbound, receipt_key
from services.dispatcher.reports import publish_reports

KEY = b"a key for the tests"
NOW = datetime.now(UTC)


def receipt(provider_id: str) -> GatewayReceipt:
    return GatewayReceipt(
        gateway="demo",
        provider_id=provider_id,
        state=ReceiptState.DELIVERED,
        destination="254711000001",
        observed_at=NOW,
    )


def inbound(source: str, gateway: str = "demo") -> SmsInbound:
    return SmsInbound(
        gateway=gateway,
        source=source,
        destination="20414",
        data_coding=0,
        esm_class=0,
        content_hex=b"STOP".hex(),
        observed_at=NOW,
    )


async def test_receipts_of_one_id_and_parts_of_one_sender_stay_in_order_and_no_number_is_a_key() -> None:
    bus = MemoryBus()
    brought = [receipt("a"), inbound("254711000001"), receipt("b"), inbound("254711000001"), receipt("a")]
    others = [inbound("254711000002"), inbound("254711000001", gateway="other")]
    await publish_reports(bus.producer(), KEY, [*brought, *others])
    receipts, messages = bus.records(topics.RECEIPTS.name), bus.records(topics.INBOUND.name)
    assert [r.key for r in receipts] == [receipt_key("demo", provider_id) for provider_id in "aba"]
    one, same, *rest = [r.key for r in messages]
    assert one == same
    assert len({one, *rest}) == 3
    await publish_reports(bus.producer(), b"another key for the tests", [brought[1]])
    assert bus.records(topics.INBOUND.name)[-1].key not in {one, *rest}
    for record in messages:
        event = decoder_for(Event[SmsInbound])(record.value or b"")
        assert b"254711" not in (record.key or b"") + event.subject.encode()
        assert event.subject.encode() == record.key


async def test_each_coming_of_a_report_has_an_id_of_its_own() -> None:
    bus = MemoryBus()
    for _ in range(2):
        await publish_reports(bus.producer(), KEY, [receipt("a"), receipt("a"), inbound("254711000001")])
    ids = {decoder_for(Event[GatewayReceipt])(r.value or b"").id for r in bus.records(topics.RECEIPTS.name)}
    ids |= {decoder_for(Event[SmsInbound])(r.value or b"").id for r in bus.records(topics.INBOUND.name)}
    assert len(ids) == 6


async def test_what_kafka_does_not_take_is_not_answered_for() -> None:
    bus = MemoryBus()
    bus.available = False
    with pytest.raises(PublishFailed):
        await publish_reports(bus.producer(), KEY, [receipt("a")])
