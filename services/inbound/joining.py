"""Which message a part belongs to: pure functions over the parts that are known.

A reference that joins parts has 8 or 16 bits and comes again, so parts join only within `JOIN_WITHIN` of the message's first one, and a
second part with the number of one that is there opens the next message, unless it is the same again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

from libs.contracts.events import SmsInbound
from libs.contracts.message_ids import time_of
from libs.sms_text.parts import Part, read_part

JOIN_WITHIN = timedelta(hours=24)

JoinKey = tuple[str, int, str, str, int]
"""Gateway, reference, source, destination, total."""


class Arrival(NamedTuple):
    """One event: what came, whose it is, and what part it is."""

    event_id: str
    tenant: str
    sender: str
    data: SmsInbound
    content: bytes
    part: Part

    @property
    def key(self) -> JoinKey:
        data = self.data
        return (data.gateway, self.part.reference, data.source, data.destination, self.part.total)


class Known(NamedTuple):
    """A part that is stored."""

    message_id: UUID
    event_id: str
    number: int
    content: bytes


class Placed(NamedTuple):
    """A part and its message; `opens` when it is the first of it."""

    message_id: UUID
    opens: bool
    arrival: Arrival


def part_of(data: SmsInbound, content: bytes) -> Part:
    """What part the content is: its SAR fields go first (SMPP 3.4 §5.3.2.22 to .24), else its user data header.

    One whose joining fields make no sense stands alone, content and all: it is shown as it came.
    """
    try:
        part = read_part(content, data.esm_class)
    except ValueError:
        return Part(content)
    if data.sar_reference is None or data.sar_total is None or data.sar_part is None:
        return part
    if not 1 <= data.sar_part <= data.sar_total:
        return Part(part.octets)
    return Part(part.octets, data.sar_reference, data.sar_total, data.sar_part)


def taken_apart(content: bytes, esm_class: int) -> Part:
    """The content without its user data header, where that can be read, and what it says of the alphabet."""
    try:
        return read_part(content, esm_class)
    except ValueError:
        return Part(content)


def place(arrivals: Iterable[Arrival], known: Iterable[tuple[JoinKey, Known]]) -> list[Placed]:
    """The message of each arrival that is not stored yet, in the order of their coming."""
    messages: defaultdict[JoinKey, list[Known]] = defaultdict(list)
    for key, part in known:
        messages[key].append(part)
    placed: list[Placed] = []
    for arrival in arrivals:
        if arrival.part.total == 1:
            placed.append(Placed(opened_by(arrival), True, arrival))
            continue
        parts = messages[arrival.key]
        if any(part.event_id == arrival.event_id for part in parts):
            continue
        message_id = _joins(arrival, parts)
        opens = message_id is None
        message_id = message_id or opened_by(arrival)
        parts.append(Known(message_id, arrival.event_id, arrival.part.number, arrival.content))
        placed.append(Placed(message_id, opens, arrival))
    return placed


def opened_by(arrival: Arrival) -> UUID:
    """The id of the message that a part opens, the same whenever it comes: a UUIDv7 of its time and its event's id."""
    milliseconds = max(0, int(arrival.data.observed_at.timestamp() * 1000))
    digest = int.from_bytes(blake2b(arrival.event_id.encode(), digest_size=10).digest())
    return UUID(int=milliseconds << 80 | 7 << 76 | (digest >> 62 & 0xFFF) << 64 | 2 << 62 | digest & ((1 << 62) - 1))


def _joins(arrival: Arrival, parts: Sequence[Known]) -> UUID | None:
    """The newest message of these parts that lacks this one, or has the very same."""
    for message_id in sorted({part.message_id for part in parts}, reverse=True):
        if abs(arrival.data.observed_at - time_of(message_id)) > JOIN_WITHIN:
            continue
        same = [p for p in parts if p.message_id == message_id and p.number == arrival.part.number]
        if not same or same[0].content == arrival.content:
            return message_id
    return None
