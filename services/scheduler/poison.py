"""Deferrals whose record went to the dead letters: if the message can be named, its history says so (rule 7 of docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from libs.bus.codec import decoder
from libs.bus.errors import Undecodable
from libs.bus.naming import name_of
from libs.bus.port import Publisher
from libs.bus.record import Record
from libs.contracts import topics
from libs.contracts.events import Priority, Reason
from libs.contracts.statuses import Status
from libs.storage.database import Pool
from services.scheduler import store
from services.scheduler.publications import ending
from services.scheduler.store import Arrival, Settled

_read_status = decoder(topics.STATUS)


async def tell_history(
    record: Record, reason: Reason, pool: Pool, producer: Publisher, now: Callable[[], datetime]
) -> None:
    """End the message of a dead letter as `rejected`, for the reason `poison`, unless it can't be named.

    That is stored first, so that the same record, should it become readable, sends nothing. If the deferral was kept before, nothing
    is said: it may have been sent. A command has no message that could end.
    """
    named = name_of(record.raw)
    if named is None:
        return
    leg, message = named.data.leg, named.data.message
    person = message.recipient
    place = (named.subject, leg.cycle, leg.leg, leg.leg_at, message.tenant, person.kind, person.id, named.traceparent)
    why = Reason("poison", f"its record could not be handled: {reason.code}")
    try:
        _read_status(ending(Settled(*place, now()), Status.REJECTED, why).value or b"")
    except Undecodable:  # a name may be readable and yet not be one that events may carry
        return
    stored = await store.reject(pool, Arrival(*place, Priority.NORMAL, b""), now())
    if stored is not None:
        await producer.publish_many([ending(stored, Status.REJECTED, why)])
