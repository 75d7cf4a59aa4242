"""What a provider brings on its own goes to Kafka before the provider hears that we have it: nothing else would bring it back."""

from __future__ import annotations

from collections.abc import Sequence
from os import urandom

from libs.bus.codec import encode
from libs.bus.port import Outgoing, Publisher
from libs.bus.tracing import new_traceparent
from libs.contracts import topics
from libs.contracts.events import Event, GatewayReceipt, SmsInbound, receipt_key
from libs.phone_numbers.privacy import fingerprint
from services.dispatcher.drivers.port import Report
from services.dispatcher.events import SOURCE


async def publish_reports(publisher: Publisher, inbound_key: bytes, reports: Sequence[Report]) -> None:
    """Publish receipts and inbound messages. Raises PublishFailed: the provider is then asked to bring them again."""
    traceparent = new_traceparent()
    chance = urandom(16 * len(reports)).hex()
    await publisher.publish_many(
        [_outgoing(report, chance[32 * n : 32 * n + 32], inbound_key, traceparent) for n, report in enumerate(reports)]
    )


def _outgoing(report: Report, event_id: str, inbound_key: bytes, traceparent: str) -> Outgoing:
    """Each coming has an id of its own: a provider may well report the same thing twice, and the history says so."""
    if type(report) is GatewayReceipt:
        key = receipt_key(report.gateway, report.provider_id)
        event = Event(
            id=event_id,
            type=GatewayReceipt.TYPE,
            source=SOURCE,
            time=report.observed_at,
            subject=key.decode(),
            traceparent=traceparent,
            data=report,
        )
        return Outgoing(topics.RECEIPTS.name, key, encode(event))
    assert isinstance(report, SmsInbound)
    sender = fingerprint(report.source, inbound_key).hex()
    event = Event(
        id=event_id,
        type=SmsInbound.TYPE,
        source=SOURCE,
        time=report.observed_at,
        subject=f"{report.gateway}/{sender}",
        traceparent=traceparent,
        data=report,
    )
    return Outgoing(topics.INBOUND.name, f"{report.gateway}/{sender}".encode(), encode(event))
