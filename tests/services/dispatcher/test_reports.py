"""What a provider brings on its own, as it stands on Kafka: what belongs together has one key, and each coming an id of its own."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from libs.bus.port import KeyValue
from libs.contracts import topics
from libs.contracts.events import GatewayReceipt, ReceiptState, SmsInbound, receipt_key
from services.dispatcher.drivers.port import Report
from services.dispatcher.reports import publish_reports

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SENDER, OTHER = "254711000001", "254711000002"


async def published(*reports: Report, key: bytes = b"k" * 16) -> dict[str, list[tuple[bytes, dict[str, Any]]]]:
    """The keys and events by topic."""
    told: dict[str, list[tuple[bytes, dict[str, Any]]]] = {}

    class Publisher:
        async def publish(self, topic: str, rows: Sequence[KeyValue]) -> None:
            told[topic] = [(key or b"", json.loads(value or b"")) for key, value in rows]

    publisher: Any = Publisher()
    await publish_reports(publisher, key, reports)
    return told


def inbound(source: str, destination: str) -> SmsInbound:
    return SmsInbound(
        gateway="demo",
        source=source,
        destination=destination,
        data_coding=0,
        esm_class=0,
        content_hex="00",
        observed_at=NOW,
    )


async def test_what_one_person_wrote_has_one_key_that_does_not_tell_the_number():
    reports = [inbound(SENDER, "20414"), inbound(SENDER, "20415"), inbound(OTHER, "20414")]
    first, second, third = (key for key, _ in (await published(*reports))[topics.INBOUND.name])
    assert first == second != third
    assert SENDER.encode() not in first and first.startswith(b"demo/")
    [(with_another_key, _)] = (await published(reports[0], key=b"another key here"))[topics.INBOUND.name]
    assert with_another_key != first


async def test_receipts_are_told_under_the_key_of_what_they_are_about_each_as_an_event_of_its_own():
    receipts = [
        GatewayReceipt(
            gateway="demo", provider_id=provider_id, state=ReceiptState.DELIVERED, destination=SENDER, observed_at=NOW
        )
        for provider_id in ("a", "a", "b")
    ]
    told = await published(inbound(SENDER, "20414"), *receipts)
    rows = told[topics.RECEIPTS.name]
    assert [key for key, _ in rows] == [receipt_key("demo", each.provider_id) for each in receipts]
    assert [event["subject"].encode() for _, event in rows] == [key for key, _ in rows]
    assert len({event["id"] for rows in told.values() for _, event in rows}) == 4
