"""Rows of the outbox, made from folds and events alone: no clock, no serial, no order of arrival.

Whoever folds the same events gets the same rows, byte for byte; a rebuild uses the same functions.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

import msgspec

from libs.contracts.events import SmsDispatch, SmsRequested
from libs.contracts.fold import AnyMessageEvent, MessageFold, shown

encode_fold = msgspec.msgpack.Encoder().encode
decode_fold = msgspec.msgpack.Decoder(MessageFold).decode


class MessageRow(NamedTuple):
    """One row of `messages`. `version` counts the writes of the row; all else is the fold's."""

    tenant: str
    message_id: UUID
    kind: str
    person: str
    status: str
    gateway: str | None
    tags: tuple[str, ...]
    fold: bytes
    version: int


class PersonalRow(NamedTuple):
    """One row of `personal`: the text under leg (0, 0), or number and name under the leg in which they were looked up."""

    message_id: UUID
    cycle: int
    leg: int
    phone: str | None
    person_name: str | None
    text: str | None


def message_row(message_id: UUID, fold: MessageFold, encoded: bytes, version: int) -> MessageRow:
    """The row of a message; `encoded` is its fold as bytes."""
    leg, best = shown(fold)
    tags = fold.request.tags if fold.request is not None else ()
    return MessageRow(
        fold.tenant,
        message_id,
        fold.kind,
        fold.person,
        best.shown_status,
        leg.gateway,
        tuple(map(storable, tags)),
        encoded,
        version,
    )


def personal_row(event: AnyMessageEvent) -> PersonalRow | None:
    """What an event says of a person, if it is the event that says it first."""
    data = event.data
    if isinstance(data, SmsRequested):
        return PersonalRow(event.subject, 0, 0, None, None, storable(data.message.text))
    if isinstance(data, SmsDispatch):
        name = None if data.person_name is None else storable(data.person_name)
        return PersonalRow(event.subject, data.leg.cycle, data.leg.leg, data.phone, name, None)
    return None


def storable(text: str) -> str:
    """Postgres keeps no NUL character in a text: it is shown as U+FFFD."""
    return text.replace("\0", "\ufffd") if "\0" in text else text
