"""Dispatches whose record went to the dead letters: if the message can be named, its history says so (rule 7 of docs/architecture.md)."""

from __future__ import annotations

from datetime import datetime

from libs.bus.codec import decoder, encode, message_key
from libs.bus.errors import Undecodable
from libs.bus.naming import name_of
from libs.bus.port import Outgoing, Publisher
from libs.bus.record import Record
from libs.contracts import topics
from libs.contracts.endings import whole_ending
from libs.contracts.events import Reason
from libs.contracts.statuses import Status
from services.dispatcher.attempts import LegKey
from services.dispatcher.ledger import Ledger
from services.dispatcher.publications import SOURCE

_read_status = decoder(topics.STATUS)


async def tell_history(record: Record, reason: Reason, ledger: Ledger, publisher: Publisher) -> None:
    """End the message of a dead letter as `rejected`, for the reason `poison`, unless it can't be named.

    That is stored first, in place of the leg's first try, so that the same record, should it become readable, sends nothing. If anything
    else is stored of the leg, nothing is said: it may have been sent.
    """
    named = name_of(record.raw)
    if named is None:
        return
    leg, message = named.data.leg, named.data.message
    why = Reason("poison", f"its record could not be handled: {reason.code}")

    def status(at: datetime) -> bytes:
        return encode(
            whole_ending(
                named.subject,
                message.tenant,
                message.recipient,
                leg,
                Status.REJECTED,
                why,
                at=at,
                source=SOURCE,
                traceparent=named.traceparent,
            )
        )

    try:
        _read_status(status(leg.leg_at))
    except Undecodable:  # a name may be readable and yet not be one that events may carry
        return
    ended_at = await ledger.reject(leg.leg_at, LegKey(named.subject, leg.cycle, leg.leg), why)
    if ended_at is not None:
        await publisher.publish_many([Outgoing(topics.STATUS.name, message_key(named.subject), status(ended_at))])
