"""Events as a dispatcher publishes them."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from libs.contracts.events import Event, SmsInbound
from libs.sms_text.segments import segments

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCE = "254700000017"
SENDER = "+254700000017"

_numbers = itertools.count(1)


def event(content: bytes = b"STOP", at: float = 0, **changes: Any) -> Event[SmsInbound]:
    """A part that came so many seconds after noon, under an id of its own."""
    fields: dict[str, Any] = {
        "gateway": "demo",
        "source": SOURCE,
        "destination": "40404",
        "data_coding": 0,
        "esm_class": 0,
        "observed_at": NOON + timedelta(seconds=at),
        **changes,
    }
    data = SmsInbound(content_hex=content.hex(), **fields)
    return Event(
        id=f"event-{next(_numbers)}",
        type=SmsInbound.TYPE,
        source="postrider/dispatcher",
        time=data.observed_at,
        subject="demo/a fingerprint",
        data=data,
    )


def parts(text: str, reference: int, at: float = 0, **changes: Any) -> list[Event[SmsInbound]]:
    """A text in its parts, each with a user data header, a second apart."""
    return [
        event(s.short_message, at + n, esm_class=s.esm_class, data_coding=s.data_coding, **changes)
        for n, s in enumerate(segments(text, reference))
    ]


def with_sar(text: str, reference: int) -> list[Event[SmsInbound]]:
    """The same, joined by SAR fields."""
    pieces = [s.short_message[7:] for s in segments(text, reference)]
    return [
        event(piece, n, sar_reference=reference, sar_total=len(pieces), sar_part=n, data_coding=0)
        for n, piece in enumerate(pieces, start=1)
    ]
