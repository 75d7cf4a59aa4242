"""What the history says of a message whose record went to the dead letters: that it ended there (rule 7 of docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import NamedTuple, TypeAlias
from uuid import UUID

import msgspec

from libs.bus.codec import decoder, encode, message_key
from libs.bus.errors import Undecodable
from libs.bus.port import Outgoing, Publisher
from libs.bus.record import Record
from libs.contracts import topics
from libs.contracts.endings import whole_ending
from libs.contracts.events import Leg, Reason, Recipient
from libs.contracts.statuses import Status


class _Message(msgspec.Struct):
    tenant: str
    recipient: Recipient


class _Data(msgspec.Struct):
    message: _Message
    leg: Leg


class Named(msgspec.Struct):
    """What of an event must be readable to tell whose message it is about, and which leg of it."""

    subject: UUID
    data: _Data
    traceparent: str | None = None


class Ending(NamedTuple):
    """The end of a leg as it is stored: when that was decided, with what status, and why."""

    at: datetime
    status: Status
    reason: Reason


EndLeg: TypeAlias = Callable[[Named, Reason], Awaitable[Ending | None]]
"""Stores that a leg ends as `rejected` for this reason, unless something is stored of it already. Answers the end that is stored, the same
each time; None if what is stored is no end, so that it may have been sent."""

_read_name = msgspec.json.Decoder(Named).decode
_read_status = decoder(topics.STATUS)


async def tell_history(record: Record, reason: Reason, *, source: str, publisher: Publisher, end_leg: EndLeg) -> None:
    """End the message of a dead letter as `rejected`, for the reason `poison`. Nothing is said of one that can't be named, or that may
    have been sent.

    The end is stored before it is told, so that the same record, should it become readable, sends nothing.
    """
    named = _name_of(record.raw)
    if named is None:
        return
    why = Reason("poison", f"its record could not be handled: {reason.code}")
    try:
        _read_status(_status(named, Ending(named.data.leg.leg_at, Status.REJECTED, why), source))
    except Undecodable:  # a name may be readable and yet not be one that events may carry
        return
    ending = await end_leg(named, why)
    if ending is not None:
        status = _status(named, ending, source)
        await publisher.publish_many([Outgoing(topics.STATUS.name, message_key(named.subject), status)])


def _name_of(value: bytes | None) -> Named | None:
    try:
        return _read_name(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _status(named: Named, ending: Ending, source: str) -> bytes:
    message = named.data.message
    return encode(
        whole_ending(
            named.subject,
            message.tenant,
            message.recipient,
            named.data.leg,
            ending.status,
            ending.reason,
            at=ending.at,
            source=source,
            traceparent=named.traceparent,
        )
    )
