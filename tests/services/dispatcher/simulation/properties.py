"""What must hold of a simulated gateway: the properties of the sending protocol."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import UUID

from libs.bus.codec import decoder_for
from libs.contracts import topics
from libs.contracts.events import MessageEvent, ReceiptState, SmsDispatch, SmsReturned, SmsStatus
from libs.contracts.statuses import FINALS, NEGATIVE_FINALS, Status
from services.dispatcher.attempts import AGAIN, Attempt, LegKey, LegState, Outcome, is_concluded, is_first_sending
from services.dispatcher.drivers.port import Verdict
from services.dispatcher.ledger import Ledger
from services.dispatcher.publications import RESENT, events_of
from services.dispatcher.sender import LATE_SECONDS, TOGETHER_SECONDS
from services.receipts.statuses import SOURCE as RECEIPTS
from services.receipts.statuses import STATUSES
from tests.services.dispatcher.builders import GATEWAY

if TYPE_CHECKING:
    from tests.services.dispatcher.simulation.world import World

DOUBT = (Outcome.DOUBT, Outcome.DOUBT_BY_PEER)
ENDS = FINALS | {Status.UNKNOWN}
"""Once the window of the receipts is over."""

_ALLOWED = "SELECT message_id, cycle, leg, part, try, allowed_at FROM attempts WHERE message_id = ANY ($1)"

Place = tuple[UUID, int, int, int, int]
"""Of an attempt: message, cycle, leg, part, try."""


async def stored(world: World, events: Sequence[MessageEvent[SmsDispatch]]) -> dict[LegKey, LegState]:
    """The legs of these events with the rows that are left of them."""
    legs = {leg.key: leg for leg in map(LegState, events)}
    ledger = Ledger(world.pool, GATEWAY, UUID(int=0), 0)
    for key, attempts in (await ledger.read([*legs.values()])).items():
        legs[key].attempts = attempts
    return legs


def row_of(legs: dict[LegKey, LegState], place: Place) -> Attempt | None:
    rows = legs[LegKey(*place[:3])].attempts
    return next((a for a in rows if (a.part, a.try_number) == place[3:]), None)


async def written_is_stored(world: World) -> None:
    """What is written to the carrier has its row, without an outcome, in time, after proof that the try before was not accepted, and its
    owner's lease was not called over before."""
    new = [s for s in world.submits if not s.checked]
    if not new:
        return
    legs = await stored(world, [s.sent.leg.event for s in new])
    for submit in new:
        submit.checked = True
        row = row_of(legs, submit.place)
        assert row is not None, "an attempt is written before its first byte"
        assert row.owner == submit.process.lease.instance, "who sends is who claimed"
        assert submit.sent.leg.event.data.message.valid_until > world.at(submit.at), "nothing is sent past its validity"
        before = row_of(legs, (*submit.place[:4], submit.place[4] - 1))
        assert before is None or before.outcome in AGAIN, f"tried again after {before}"
        assert row.outcome is None and not row.owner_dead, f"nothing is sent that is settled already: {row.outcome}"


async def committed_is_concluded(world: World, events: Sequence[MessageEvent[SmsDispatch]]) -> None:
    """No offset is committed before the outcomes of what lies before it are stored, and told or, if they came late, kept to be told."""
    kept = {row["value"] for row in await world.pool.fetch("SELECT value FROM late_events")}
    for leg in (await stored(world, events)).values():
        assert leg.attempts and is_concluded(leg), f"committed before its outcomes: {leg.key}"
        told(world, leg, kept)


def told(world: World, leg: LegState, kept: Collection[bytes] = ()) -> None:
    """All that follows from the rows of a leg is in Kafka, with the words that they give."""
    resend = world.gateway.in_doubt == "resend_once" and leg.parts == 1 and is_first_sending(leg)
    for attempt in leg.attempts:
        for event in events_of(leg, attempt, resend):
            assert event in world.records or event.value in kept, f"stored and not told: {attempt}"


async def at_rest(world: World) -> None:
    """The properties of a history that has come to its end."""
    legs = await stored(world, [event for event in world.decided.values() if event is not None])
    for leg in legs.values():
        told(world, leg)
        assert all(a.outcome is not None for a in leg.attempts), "an attempt without outcome is left"
    assert not await world.pool.fetchval("SELECT count(*) FROM late_events"), "a late event is left"
    _events_are_repeated_alike(world)
    submits = Counter(s.place for s in world.submits)
    assert max(submits.values(), default=1) == 1, "an attempt is submitted once at most"
    _rows_say_what_the_carrier_did(world, legs)
    _nothing_is_taken_twice_unnoticed(world)
    await _the_rate_is_kept(world)
    await _receipts_find_their_attempts(world, legs)
    for message_id in world.ids:
        _what_is_shown_is_true(world, message_id, [leg for key, leg in legs.items() if key.message_id == message_id])


async def _the_rate_is_kept(world: World) -> None:
    """By the ledger's clock moments are as far apart as the rate says, and each part leaves when the process heard that it may."""
    rate = world.gateway.segments_per_second
    if not rate:
        return
    rows = await world.pool.fetch(_ALLOWED, world.ids)
    allowed = {tuple(row)[:5]: row["allowed_at"] for row in rows}
    moments = sorted(allowed[s.place] for s in world.submits)
    step = timedelta(seconds=1 / rate)
    assert all(b - a >= step for a, b in pairwise(moments)), "more moments than the rate allows"
    for s in world.submits:
        assert s.sent.leaves_at - TOGETHER_SECONDS <= s.at <= s.sent.leaves_at + LATE_SECONDS, "not sent at its moment"
        assert world.at(s.at) <= allowed[s.place] + timedelta(seconds=LATE_SECONDS), "sent late"


async def _receipts_find_their_attempts(world: World, legs: dict[LegKey, LegState]) -> None:
    """Each tells of its own attempt, or is parked as long as nobody knows which that is; the doubt that it disproves is over."""
    told = {
        (message_id, e.data.leg.cycle, e.data.leg.leg, e.data.part, e.data.try_number, e.data.status)
        for message_id, events in world.events.items()
        for e in events
        if e.source == RECEIPTS and isinstance(e.data, SmsStatus) and e.data.status in STATUSES.values()
    }
    told = {t for t in told if t[5] is not Status.UNKNOWN}
    named = [s for s in world.submits if s.reported and _is_named(world, row_of(legs, s.place))]
    assert told == {(*s.place, STATUSES[state]) for s in named for state in s.reported}, "receipts of other attempts"
    lonely = {s.receipt_id(n) for s in world.submits if s not in named for n in range(len(s.reported))}
    assert await world.receipts.parked() == lonely, "a receipt is lost"
    open_doubts = await world.receipts.open_doubts()
    assert open_doubts.isdisjoint(s.place for s in named if row_of(legs, s.place).outcome in DOUBT), (
        "a receipt ends no doubt"
    )
    for place in open_doubts:
        row = row_of(legs, place)
        assert row is not None and row.outcome in (*DOUBT, Outcome.ACCEPTED), f"a doubt outlives its proof: {row}"


def _is_named(world: World, row: Attempt | None) -> bool:
    """Whether a receipt of this attempt can be known for its own."""
    assert row is not None
    return row.outcome is Outcome.ACCEPTED or (row.outcome in DOUBT and world.repeats_references)


def _events_are_repeated_alike(world: World) -> None:
    known: dict[str, bytes | None] = {}
    for record in world.records:
        if record.topic == topics.STATUS.name:
            event = decoder_for(MessageEvent[SmsStatus])(record.value)
            assert known.setdefault(event.id, record.value) == record.value, "one event id, two contents"


def _rows_say_what_the_carrier_did(world: World, legs: dict[LegKey, LegState]) -> None:
    taken = {s.place: s.provider_id for s in world.submits if s.fate is Verdict.ACCEPTED}
    written = {s.place for s in world.submits}
    for key, leg in legs.items():
        for a in leg.attempts:
            place = (*key, a.part, a.try_number)
            if a.outcome is Outcome.ACCEPTED:
                assert taken.get(place) == a.provider_id, "said to be accepted"
            elif a.outcome not in DOUBT:
                assert place not in taken, f"the carrier took it, its row says {a.outcome}"
            if a.outcome in (Outcome.NOT_SENT, Outcome.CANCELLED, Outcome.RETURNED, Outcome.EXPIRED):
                assert place not in written, f"it was written, its row says {a.outcome}"
    for place in taken:
        assert row_of(legs, place) is not None


def _nothing_is_taken_twice_unnoticed(world: World) -> None:
    taken: defaultdict[tuple[UUID, int, int], int] = defaultdict(int)
    for s in world.submits:
        if s.fate is Verdict.ACCEPTED:
            message_id, cycle, _, part, _ = s.place
            taken[message_id, cycle, part] += 1
    for (message_id, _, _), times in taken.items():
        assert times <= (2 if world.gateway.in_doubt == "resend_once" else 1), "taken more often than the policy allows"
        assert times == 1 or world.shown(message_id).possible_double, "taken twice, and nobody says so"


def _what_is_shown_is_true(world: World, message_id: UUID, legs: Sequence[LegState]) -> None:
    """It ends. Delivered is what a receipt or an operator says; a bad end may be shown of what was accepted in part, or where an operator
    said so, and else of nothing that may be accepted."""
    view, said = world.shown(message_id), world.said.get(message_id, set())
    assert view.status in ENDS, f"it does not end: {view.status}"
    resent = {
        e.id: e.data.leg.cycle
        for e in world.events[message_id]
        if isinstance(e.data, SmsReturned) and e.data.reason == RESENT
    }
    assert max(Counter(resent.values()).values(), default=0) <= 1, "sent on doubt more than once"
    reports = {s.place: s.reported for s in world.submits}
    maybe = {
        (*leg.key, a.part, a.try_number): a
        for leg in legs
        for a in leg.attempts
        if a.outcome in (*DOUBT, Outcome.ACCEPTED)
    }
    reported = {place: reports.get(place, []) if _is_named(world, a) else [] for place, a in maybe.items()}
    delivered = Counter(place[:3] for place, states in reported.items() if ReceiptState.DELIVERED in states)
    is_delivered = Status.DELIVERED in said or any(delivered[leg.key] == leg.parts for leg in legs)
    assert (view.status is Status.DELIVERED) == is_delivered, f"shown {view.status}, delivered: {is_delivered}"
    unsettled = [
        place
        for place, states in reported.items()
        if not {*states} & {ReceiptState.DELIVERED, ReceiptState.UNDELIVERABLE}
    ]
    if view.status is Status.UNKNOWN:
        assert unsettled, "shown unknown, and all is known"
    elif view.status in NEGATIVE_FINALS and Status.FAILED not in said:
        if legs[0].parts == 1:
            assert not unsettled, f"shown {view.status}, and it may have been accepted"
        elif view.status is Status.CANCELLED:
            taken = {s.place for s in world.submits if s.fate is Verdict.ACCEPTED and s.place[0] == message_id}
            assert not any(place[1] == view.cycle for place in taken), "shown cancelled, and a part was accepted"
