"""Rows of the outbox, made from folds and events alone: no clock, no serial, no order of arrival.

Whoever folds the same events gets the same fold, byte for byte; a rebuild uses the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from libs.contracts.best import Best
from libs.contracts.events import Encoding, PersonKind, SmsDispatch, SmsRequested
from libs.contracts.fold import AnyMessageEvent, Attempt, LegFold, MessageFold, Request, shown
from libs.contracts.folded_commands import FoldedCommand


class MessageRow(msgspec.Struct, frozen=True, gc=False):
    """One row of `messages`. `version` counts the writes of the row; all else is the fold's.

    `tags` is None where there are none: of an array asyncpg asks in three ways whether it is one, for 1.5 µs.
    """

    tenant: str
    message_id: UUID
    kind: str
    person: str
    status: str
    gateway: str | None
    tags: tuple[str, ...] | None
    fold: bytes
    version: int
    batch: UUID | None


NewPersonalRow = tuple[UUID, int, int, str | None, str | None, str | None]
"""A `PersonalRow` to be written, as plain a tuple as asyncpg copies fastest."""


class PersonalRow(NamedTuple):
    """One row of `personal`: number and name under the leg in which they were looked up, and the text with the first that is known of a
    cycle's legs, or under leg 0 if none is yet."""

    message_id: UUID
    cycle: int
    leg: int
    phone: str | None
    person_name: str | None
    text: str | None


def message_row(message_id: UUID, fold: MessageFold, version: int) -> MessageRow:
    """The row of a message."""
    leg, best = shown(fold)
    tags = fold.request.tags if fold.request is not None else ()
    return MessageRow(
        fold.tenant,
        message_id,
        fold.kind,
        fold.person,
        best.shown_status,
        leg.gateway,
        tuple(map(storable, tags)) if tags else None,
        encode_fold(fold),
        version,
        fold.request.batch_id if fold.request is not None else None,
    )


def personal_rows(message_id: UUID, events: Iterable[AnyMessageEvent]) -> list[NewPersonalRow]:
    """What these events say of a person, by legs."""
    texts: dict[int, str] = {}
    rows: list[NewPersonalRow] = []
    for event in events:
        data = event.data
        if isinstance(data, SmsRequested):
            texts[data.leg.cycle] = storable(data.message.text)
        elif isinstance(data, SmsDispatch):
            name = None if data.person_name is None else storable(data.person_name)
            rows.append((message_id, data.leg.cycle, data.leg.leg, data.phone, name, None))
    if len(rows) > 1:
        rows.sort(key=_leg)
    for cycle, text in texts.items():
        for at, row in enumerate(rows):
            if row[1] == cycle:
                rows[at] = (*row[:5], text)
                break
        else:
            rows.append((message_id, cycle, 0, None, None, text))
    return rows


def apart(rows: Iterable[NewPersonalRow]) -> Iterator[NewPersonalRow]:
    """The same rows, each text in one of its own."""
    for message_id, cycle, leg, phone, name, text in rows:
        if text is not None:
            yield (message_id, cycle, 0, None, None, text)
        if leg:
            yield (message_id, cycle, leg, phone, name, None)


def storable(text: str) -> str:
    """Postgres keeps no NUL character in a text: it is shown as U+FFFD."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def storable_data(value: Any) -> Any:
    """MessagePack's integers have 64 bits: in JSON a greater one is kept as its decimal text."""
    if isinstance(value, dict):
        return {name: storable_data(each) for name, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [storable_data(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value


# A fold is stored as arrays without field names: half the size, and read four times as fast. New fields go to the end and have a default.
_Attempt = tuple[int, int, Best, bool, bool, bool, datetime | None, str | None]
_Leg = tuple[int, int, int, str | None, Encoding | None, Best | None, list[_Attempt], datetime | None]
_leg = itemgetter(1, 2)
_attempt = attrgetter("part", "try_number", "best", "accepted", "doubted", "refused", "submitted_at", "provider_id")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, PersonKind, str, Request | None, list[_Leg], list[FoldedCommand]]).decode


def encode_fold(fold: MessageFold) -> bytes:
    """The fold as `messages` keeps it."""
    legs = [
        (g.cycle, g.leg, g.parts, g.gateway, g.encoding, g.whole, [_attempt(a) for a in g.attempts], g.due_at)
        for g in fold.legs
    ]
    try:
        return _encode((fold.tenant, fold.kind, fold.person, fold.request, legs, fold.commands))
    except OverflowError:  # rare enough that nobody else pays for looking
        request = fold.request and fold.request._replace(custom_data=storable_data(fold.request.custom_data))
        return _encode((fold.tenant, fold.kind, fold.person, request, legs, fold.commands))


def decode_fold(stored: bytes) -> MessageFold:
    """The fold again."""
    tenant, kind, person, request, legs, commands = _decode(stored)
    return MessageFold(
        tenant,
        kind,
        person,
        request,
        [
            LegFold(cycle, leg, parts, gateway, encoding, whole, [Attempt(*each) for each in attempts], due_at)
            for cycle, leg, parts, gateway, encoding, whole, attempts, due_at in legs
        ],
        commands,
    )
