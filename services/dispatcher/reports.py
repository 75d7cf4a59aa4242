"""What a provider brings on its own goes to Kafka before the provider hears that we have it: nothing else would bring it back."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

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
    await publisher.publish_many([_outgoing(report, inbound_key, traceparent) for report in reports])


def _outgoing(report: Report, inbound_key: bytes, traceparent: str) -> Outgoing:
    """Each coming has an id of its own: a provider may well report the same thing twice, and the history says so."""
    if isinstance(report, GatewayReceipt):
        event = Event(
            id=uuid4().hex,
            type=GatewayReceipt.TYPE,
            source=SOURCE,
            time=report.observed_at,
            subject=f"{report.gateway}/{report.provider_id}",
            traceparent=traceparent,
            data=report,
        )
        return Outgoing(topics.RECEIPTS.name, receipt_key(report.gateway, report.provider_id), encode(event))
    sender = fingerprint(report.source, inbound_key).hex()
    event = Event(
        id=uuid4().hex,
        type=SmsInbound.TYPE,
        source=SOURCE,
        time=report.observed_at,
        subject=f"{report.gateway}/{sender}",
        traceparent=traceparent,
        data=report,
    )
    return Outgoing(topics.INBOUND.name, f"{report.gateway}/{sender}".encode(), encode(event))
