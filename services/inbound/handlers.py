"""Stores a batch of events from handsets: each once, as a part of its message."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from libs.bus.batch import Batch
from libs.bus.errors import BadRecord
from libs.contracts.events import Event, Reason, SmsInbound
from libs.service_kit.crash_points import crash_point
from libs.storage.database import Pool
from services.inbound.joining import Arrival, part_of
from services.inbound.senders import sender_of
from services.inbound.store import store

NOT_HEX = Reason("inbound.content", "data.content_hex: is not hex")


async def handle(batch: Batch, pool: Pool, tenant_of: Callable[[str], str], default_region: str | None) -> None:
    """Store a batch; committed by the consumer when it returns."""
    arrivals = take((record.event for record in batch.records), tenant_of, default_region)
    crash_point("inbound.receive-store")
    await store(pool, arrivals)
    crash_point("inbound.store-commit")


def take(
    events: Iterable[Event[SmsInbound]], tenant_of: Callable[[str], str], default_region: str | None
) -> list[Arrival]:
    """What is to be stored. Raises BadRecord where the content is not hex."""
    arrivals: list[Arrival] = []
    for event in events:
        data = event.data
        try:
            content = bytes.fromhex(data.content_hex)
        except ValueError:
            raise BadRecord(NOT_HEX) from None
        sender = sender_of(data.source, default_region)
        arrivals.append(Arrival(event.id, tenant_of(data.gateway), sender, data, content, part_of(data, content)))
    return arrivals
