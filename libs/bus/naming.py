"""Whose message a record is about, and which leg of it, as far as that can be told when the record can't be handled."""

from __future__ import annotations

from uuid import UUID

import msgspec

from libs.contracts.events import Leg, Recipient


class NamedMessage(msgspec.Struct):
    tenant: str
    recipient: Recipient


class _Data(msgspec.Struct):
    message: NamedMessage
    leg: Leg


class Named(msgspec.Struct):
    """What of an event must be readable to tell whose message it is about."""

    subject: UUID
    data: _Data
    traceparent: str | None = None


_read = msgspec.json.Decoder(Named).decode


def name_of(value: bytes | None) -> Named | None:
    """The name of the message; None if it has none. It may hold what no event may carry: check what is made of it."""
    try:
        return _read(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
