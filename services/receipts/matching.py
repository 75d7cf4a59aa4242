"""Which attempt a receipt speaks of: pure functions over what is known of its id.

A match is decided by times of the causes alone (`observed_at` of both sides, never the moment of reading), so that a receipt that comes
back meets the same attempt again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from msgspec.structs import replace

from libs.contracts.events import PersonKind, ReceiptState

EARLY = timedelta(hours=1)
"""How long before its id is registered a receipt may be observed: it can overtake the answer to the submit, and that answer may be late."""
ID_LIFE = timedelta(days=14)
"""How long after its registration an id still means that attempt: twice the longest validity. Carriers use ids again after months."""
DOUBT_LIFE = timedelta(hours=72)
"""How long a doubtful attempt waits for a receipt. References have 16 bits, so an older one may be someone else's."""

_NO_TIME = timedelta(0)

Key = tuple[str, str]
"""Gateway and provider id: what a receipt is found by."""


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One try of one part: its coordinates and whose it is.

    `destination` is the number's fingerprint, `trace_id` the trace of its message; each None when unknown.
    """

    message_id: UUID
    cycle: int
    leg: int
    leg_at: datetime
    part: int
    parts: int
    try_number: int
    tenant: str
    kind: PersonKind
    person: str
    destination: bytes | None
    trace_id: UUID | None

    @property
    def coordinates(self) -> tuple[UUID, int, int, int, int]:
        return (self.message_id, self.cycle, self.leg, self.part, self.try_number)


class Registration(msgspec.Struct, frozen=True, gc=False):
    """A carrier's id for an attempt. `resolved_by` is the event id of the receipt that named it, where the attempt was in doubt."""

    gateway: str
    provider_id: str
    reuse: int
    attempt: Attempt
    registered_at: datetime
    resolved_by: str | None = None

    @property
    def key(self) -> Key:
        return (self.gateway, self.provider_id)


class Doubt(msgspec.Struct, frozen=True, gc=False):
    """An attempt that the carrier may have taken, or took and gave no id for, with the reference that its receipt would repeat.

    `disproved`: what was said of it is the late proof that the carrier did not take it.
    """

    gateway: str
    reference: int
    attempt: Attempt
    doubted_at: datetime
    disproved: bool = False


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """A receipt without the number that it names. `id` is its event's id."""

    gateway: str
    provider_id: str
    id: str
    state: ReceiptState
    error: str | None
    carrier_time: str | None
    observed_at: datetime
    reference: int | None
    destination: bytes | None
    traceparent: str | None
    word: str | None = None

    @property
    def key(self) -> Key:
        return (self.gateway, self.provider_id)


class Match(msgspec.Struct, frozen=True, gc=False):
    """A receipt, and the attempt that it reports of."""

    receipt: Receipt
    registration: Registration

    @property
    def resolves_doubt(self) -> bool:
        """The receipt is what proved that the attempt was accepted."""
        return self.registration.resolved_by == self.receipt.id


def pair(receipt: Receipt, registrations: Iterable[Registration]) -> Registration | None:
    """The registration of the receipt's id that it speaks of: the newest at its time, else the first that follows within `EARLY`.

    A registration with another destination never fits; an unknown destination, on either side, says nothing.
    """
    before: Registration | None = None
    after: Registration | None = None
    for r in registrations:
        if not _agree(receipt.destination, r.attempt.destination):
            continue
        age = receipt.observed_at - r.registered_at
        if _NO_TIME <= age <= ID_LIFE:
            before = r if before is None else max(before, r, key=_age_order)
        elif -EARLY <= age < _NO_TIME:
            after = r if after is None else min(after, r, key=_age_order)
    return before or after


def place(offered: Registration, known: Sequence[Registration]) -> Registration | None:
    """The registration under the next free reuse count of its id, or None when the attempt is registered there already."""
    if any(r.attempt.coordinates == offered.attempt.coordinates for r in known):
        return None
    return replace(offered, reuse=next_reuse(known))


def next_reuse(known: Iterable[Registration]) -> int:
    return max((r.reuse for r in known), default=-1) + 1


def resolve(receipt: Receipt, doubts: Iterable[Doubt], settled: Collection[Attempt]) -> Doubt | None:
    """The doubt that a receipt of an unknown id ends: the only one with its gateway, reference and destination in its time."""
    fitting = [
        d
        for d in doubts
        if d.attempt not in settled
        and (d.gateway, d.reference, d.attempt.destination) == (receipt.gateway, receipt.reference, receipt.destination)
        and -EARLY <= receipt.observed_at - d.doubted_at <= DOUBT_LIFE
    ]
    return fitting[0] if len(fitting) == 1 else None


def _agree(one: bytes | None, other: bytes | None) -> bool:
    return one is None or other is None or one == other


def _age_order(r: Registration) -> tuple[datetime, int]:
    return (r.registered_at, r.reuse)
