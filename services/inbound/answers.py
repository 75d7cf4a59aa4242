"""From stored parts to what the API shows: one message, joined and decoded as far as it can be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from asyncpg import Record

from libs.contracts.http.answers import Inbound, InboundPart
from libs.contracts.message_ids import time_of
from libs.sms_text.parts import decode_text, is_text
from services.inbound.joining import taken_apart


def inbound(rows: Sequence[Record]) -> Inbound:
    """The message that these parts, at least one, make. A part that came twice is listed twice and read once.

    It was received when its id says so, in whole milliseconds: that is what `from` and `to` compare.
    """
    rows = sorted(rows, key=lambda row: (row["number"], row["received_at"], row["event_id"]))
    first = rows[0]  # what joins the parts is the same in each
    numbers = {row["number"]: row for row in reversed(rows)}
    complete = len(numbers) == first["total"]
    return Inbound(
        id=first["message_id"],
        gateway=first["gateway"],
        source=first["sender"],
        destination=first["destination"],
        received_at=time_of(first["message_id"]),
        text=_text([numbers[n] for n in sorted(numbers)]) if complete else None,
        complete=complete,
        total=first["total"],
        parts=tuple(_part(row) for row in rows),
    )


def _text(rows: Sequence[Record]) -> str | None:
    """The text of all parts in their order; None where one of them is in no alphabet that we know.

    The octets are joined before they are decoded: other senders do split characters.
    """
    parts = [(row["data_coding"], taken_apart(row["content"], row["esm_class"])) for row in rows]
    if not all(is_text(data_coding, national=part.national) for data_coding, part in parts):
        return None
    return "".join(
        decode_text(b"".join(part.octets for _, part in run), data_coding)
        for data_coding, run in groupby(parts, key=itemgetter(0))
    )


def _part(row: Record) -> InboundPart:
    return InboundPart(
        part=row["number"],
        received_at=row["received_at"],
        source=row["source"],
        data_coding=row["data_coding"],
        esm_class=row["esm_class"],
        content_hex=row["content"].hex(),
        sar_reference=row["sar_reference"],
        sar_total=row["sar_total"],
        sar_part=row["sar_part"],
    )
