"""Messages whose record went to the dead letters: if the message can be named, its history says so (rule 7 of docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from libs.bus.codec import decoder
from libs.bus.errors import Undecodable
from libs.bus.naming import name_of
from libs.bus.port import Outgoing, Publisher
from libs.bus.record import Record
from libs.contracts import topics
from libs.contracts.events import Reason
from libs.contracts.statuses import Status
from libs.storage.database import Pool
from services.resolver.deciding import Ended
from services.resolver.decisions import Coordinates, settle
from services.resolver.publications import ending

_read_status = decoder(topics.STATUS)


async def tell_history(
    record: Record, reason: Reason, pool: Pool, producer: Publisher, now: Callable[[], datetime]
) -> None:
    """End the message of a dead letter as `rejected`, for the reason `poison`, unless it can't be named.

    That is a decision like any other: stored first, so that the same record, should it become readable, sends nothing. If the leg was
    decided before, nothing is said: it may have been sent.
    """
    named = name_of(record.raw)
    if named is None:
        return
    leg, message = named.data.leg, named.data.message

    def status(decision: Ended) -> Outgoing:
        return ending(named.subject, message.tenant, message.recipient, leg, decision, named.traceparent)

    made = Ended(now(), Status.REJECTED, Reason("poison", f"its record could not be handled: {reason.code}"))
    try:
        _read_status(status(made).value or b"")
    except Undecodable:  # a name may be readable and yet not be one that events may carry
        return
    at = Coordinates(leg.leg_at, named.subject, leg.cycle, leg.leg)
    counts = (await settle(pool, {at: made}))[at]
    if isinstance(counts, Ended):
        await producer.publish_many([status(counts)])
