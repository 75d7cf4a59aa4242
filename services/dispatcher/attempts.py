"""The words of the sending protocol, and what a leg's attempts mean: pure, so that it can be read and tested alone.

`services/dispatcher/migrations` holds the same letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

import msgspec

from libs.bus.record import Record
from libs.contracts.events import MessageEvent, SmsDispatch
from libs.storage.uuids import quick_uuid


class Outcome(StrEnum):
    """What became of one attempt."""

    ACCEPTED = "A"
    TEMPORARY = "T"
    DEFERRED = "E"
    THROTTLED = "B"
    FAILED = "F"
    NOT_SENT = "N"
    CANCELLED = "C"
    RETURNED = "R"
    EXPIRED = "X"
    DOUBT = "D"
    DOUBT_BY_PEER = "P"
    LATE_RETURNED = "n"
    LATE_FAILED = "f"


def word_of(outcome: Outcome | None) -> str:
    """For people, who don't know the letters: `doubt_by_peer`."""
    return "none" if outcome is None else outcome.name.lower()


AGAIN = frozenset({Outcome.TEMPORARY, Outcome.THROTTLED, Outcome.NOT_SENT})
"""Proof that this try was not accepted, though the next may be: the part is tried again in the same leg."""

CLOSING = frozenset(
    {
        Outcome.DEFERRED,
        Outcome.FAILED,
        Outcome.CANCELLED,
        Outcome.RETURNED,
        Outcome.EXPIRED,
        Outcome.LATE_RETURNED,
        Outcome.LATE_FAILED,
    }
)
"""Nothing more is claimed in a leg that holds one of these."""

DEFER_FIRST_SECONDS = 30
DEFER_LAST_SECONDS = 3600
"""How long a message refused for now waits before its next leg: doubling, give or take a quarter."""

MOST_LEGS = 10
"""Of a cycle, with deferred ones and one that only waited for the message's time: late proof of non-acceptance opens none beyond these, or
beyond the gateway's `tries` where they are more."""

MAYBE_ACCEPTED = frozenset({Outcome.ACCEPTED, Outcome.DOUBT, Outcome.DOUBT_BY_PEER})


class LegKey(NamedTuple):
    """A message's coordinates, as far as they name a leg."""

    message_id: UUID
    cycle: int
    leg: int


class Attempt(msgspec.Struct, gc=False):
    """One row of `dispatch.attempts`. Without an outcome it is under way, if its owner lives."""

    part: int
    try_number: int
    owner: UUID
    outcome: Outcome | None = None
    ours: bool = False
    """Granted to this leg in this process: its answer comes here."""
    owner_dead: bool = False
    observed_at: datetime | None = None
    provider_id: str | None = None
    reason_code: str | None = None
    reason_words: str | None = None
    leg_opened_at: datetime | None = None
    """Of a late refusal: when the doubt that it ended had opened the next leg."""


class LegState:
    """One leg, as this instance knows it: its event, the records that brought it, and the attempts known so far."""

    __slots__ = ("asked", "attempts", "event", "key", "parts", "queued", "records")

    def __init__(self, event: MessageEvent[SmsDispatch]) -> None:
        data = event.data
        self.event = event
        self.key = LegKey(quick_uuid(event.subject.int), data.leg.cycle, data.leg.leg)
        self.parts = data.segments
        self.records: list[Record] = []
        """Several where the event came more than once; none once the leg is done, or given back in a rebalance. Kept by the board."""
        self.attempts: list[Attempt] = []
        self.asked = False
        """Whether a claim of some of its parts is not answered yet: they may be granted without being in `attempts`. Kept by the sender."""
        self.queued = False
        """Whether it stands in one of the board's queues."""


def join_reference(leg: LegState) -> int:
    """The 16-bit number that joins the parts of a message: made from the leg's coordinates, so it is the same after a crash.

    0 for a message of one part, which needs none.
    """
    return _two_octets(leg, 0, 0) if leg.parts > 1 else 0


def attempt_reference(leg: LegState, part: int, try_number: int) -> int:
    """The 16-bit user_message_reference of one attempt (SMPP 3.4 §5.3.2.17)."""
    return _two_octets(leg, part, try_number)


def _two_octets(leg: LegState, part: int, try_number: int) -> int:
    """The last 16 bits of a message id are random. The factors keep apart the numbers of attempts that are likely to be open together."""
    message_id, cycle, number = leg.key
    return (message_id.int + cycle * 40_503 + number * 7_919 + part * 251 + try_number) & 0xFFFF


def newest(leg: LegState, part: int) -> Attempt | None:
    """The try that speaks for a part. A part is tried again only after proof that the last try was not accepted."""
    found: Attempt | None = None
    for attempt in leg.attempts:
        if attempt.part == part and (found is None or attempt.try_number > found.try_number):
            found = attempt
    return found


def is_concluded(leg: LegState) -> bool:
    """Whether the leg's record is done with: nothing is under way or asked for, and nothing will be claimed any more."""
    if leg.parts == 1 and len(leg.attempts) == 1:  # most legs
        outcome = leg.attempts[0].outcome
        return outcome is not None and outcome not in AGAIN
    if leg.asked or any(a.outcome is None for a in leg.attempts):
        return False
    return not next_tries(leg)


def next_tries(leg: LegState) -> list[tuple[int, int]]:
    """The (part, try) that should be claimed next."""
    if not leg.attempts:
        return [(part, 1) for part in range(1, leg.parts + 1)]
    if any(a.outcome in CLOSING for a in leg.attempts):
        return []
    asks: list[tuple[int, int]] = []
    for part in range(1, leg.parts + 1):
        last = newest(leg, part)
        if last is None:
            asks.append((part, 1))
        elif last.outcome in AGAIN:
            asks.append((part, last.try_number + 1))
    return asks


def count_of(leg: LegState, part: int, outcome: Outcome) -> int:
    """How many tries of a part ended in one way."""
    return sum(1 for a in leg.attempts if a.part == part and a.outcome is outcome)


def refused_for_now(leg: LegState, attempt: Attempt, tries: int, observed_at: datetime) -> Outcome:
    """What a temporary refusal of a message means: it comes back later in a leg of its own, up to `tries` such legs and its validity.

    A part of several is tried again in place, up to `tries` times: others may be on their way or accepted. See `deferral`.
    """
    if leg.parts > 1:
        return Outcome.FAILED if count_of(leg, attempt.part, Outcome.TEMPORARY) + 1 >= tries else Outcome.TEMPORARY
    return Outcome.DEFERRED if _may_wait(leg, tries, observed_at) else Outcome.FAILED


def deferral(leg: LegState, attempts: Sequence[Attempt], tries: int) -> Attempt | None:
    """The row that defers a message of several parts, in place of the next try of the part that was last refused for now.

    Only as long as no part may have been accepted or is under way, and the message may have another leg (`tries`, its validity).
    """
    if leg.parts == 1 or any(a.outcome not in AGAIN for a in attempts):
        return None
    refused = [
        (a.observed_at, a.part, a) for a in attempts if a.outcome is Outcome.TEMPORARY and a.observed_at is not None
    ]
    if not refused:
        return None
    observed_at, part, last = max(refused, key=itemgetter(0, 1))
    if not _may_wait(leg, tries, observed_at):
        return None
    return Attempt(
        part,
        1 + max(a.try_number for a in attempts if a.part == part),
        last.owner,
        Outcome.DEFERRED,
        observed_at=observed_at,
        reason_code=last.reason_code,
        reason_words=last.reason_words,
    )


def _may_wait(leg: LegState, tries: int, observed_at: datetime) -> bool:
    """Whether a leg refused for now at this time may be followed by another."""
    message, coordinates = leg.event.data.message, leg.event.data.leg
    # A leg that only waited for the message's time is no try.
    before = 1 if message.scheduled_at is not None and coordinates.cycle == 1 else 0
    return coordinates.leg - before < tries and due_at(leg, observed_at) < message.valid_until


def may_come_back(leg: LegState, late: Attempt, tries: int) -> bool:
    """Whether late proof that a try was not accepted may open another leg. Where the gateway was throttled, it may for as long as the
    message is valid."""
    if late.outcome is Outcome.THROTTLED:
        return late.observed_at is not None and late.observed_at < leg.event.data.message.valid_until
    return leg.event.data.leg.leg < max(MOST_LEGS, tries)


def is_first_sending(leg: LegState) -> bool:
    """Whether no leg before this one can have sent the message: one that only waited for the message's time does not count."""
    coordinates = leg.event.data.leg
    return coordinates.leg == 1 or (coordinates.leg == 2 and coordinates.leg_at == leg.event.data.message.scheduled_at)


def due_at(leg: LegState, observed_at: datetime) -> datetime:
    """When a leg refused at this time begins anew. The jitter comes from the id, so that a repeat says the same."""
    delay = min(DEFER_FIRST_SECONDS * 2 ** (leg.key.leg - 1), DEFER_LAST_SECONDS)
    return observed_at + timedelta(seconds=delay * (0.75 + leg.key.message_id.int % 512 / 1024))


def late_outcome(attempts: Sequence[Attempt], late: Attempt, answer: Outcome, may_open_leg: bool) -> Outcome:
    """What an answer means that finds its attempt in doubt; decided under the lock that claims take.

    Late proof of non-acceptance opens the next leg only if no other part was accepted, is in doubt or under way, the leg has
    not ended otherwise, and the message may have another leg.
    """
    if answer is Outcome.ACCEPTED:
        return Outcome.ACCEPTED
    others = [a for a in attempts if not (a.part == late.part and a.try_number == late.try_number)]
    blocked = any(a.outcome is None or a.outcome in MAYBE_ACCEPTED or a.outcome in CLOSING for a in others)
    if answer is Outcome.FAILED or blocked or not may_open_leg:
        return Outcome.LATE_FAILED
    return Outcome.LATE_RETURNED
