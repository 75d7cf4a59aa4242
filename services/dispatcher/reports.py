"""What a provider brings on its own goes to Kafka before the provider hears that we have it: nothing else would bring it back."""

from __future__ import annotations

from collections.abc import Sequence
from os import urandom

from libs.bus.codec import encode
from libs.bus.port import KeyValue, Publisher
from libs.bus.quick_events import quick
from libs.bus.tracing import new_traceparent
from libs.contracts import topics
from libs.contracts.events import Event, GatewayReceipt, receipt_key
from libs.phone_numbers.privacy import fingerprint
from services.dispatcher.drivers.port import Report
from services.dispatcher.publications import SOURCE

_Event: type[Event[Report]] = quick(Event[Report])


async def publish_reports(publisher: Publisher, inbound_key: bytes, reports: Sequence[Report]) -> None:
    """Publish receipts and inbound messages. Raises PublishFailed: the provider is then asked to bring them again.

    Each coming has an id of its own: a provider may well report the same thing twice, and the history says so.
    """
    traceparent = new_traceparent()
    chance = urandom(16 * len(reports)).hex()
    receipts: list[KeyValue] = []
    inbound: list[KeyValue] = []
    for n, report in enumerate(reports):
        if isinstance(report, GatewayReceipt):
            rows, key = receipts, receipt_key(report.gateway, report.provider_id)
        else:
            rows, key = inbound, f"{report.gateway}/{fingerprint(report.source, inbound_key).hex()}".encode()
        event = _Event(
            id=chance[32 * n : 32 * n + 32],
            type=report.TYPE,
            source=SOURCE,
            time=report.observed_at,
            subject=key.decode(),
            traceparent=traceparent,
            data=report,
        )
        rows.append((key, encode(event)))
    await publisher.publish(topics.RECEIPTS.name, receipts)
    await publisher.publish(topics.INBOUND.name, inbound)
