"""What must hold of a simulated gateway: the properties of the sending protocol."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from libs.bus.codec import decoder_for
from libs.contracts import topics
from libs.contracts.events import MessageEvent, SmsDispatch, SmsStatus
from libs.contracts.statuses import NEGATIVE_FINALS, Status
from services.dispatcher.attempts import Attempt, LegKey, LegState, Outcome, is_concluded, is_first_sending
from services.dispatcher.drivers.port import Verdict
from services.dispatcher.ledger import Ledger
from services.dispatcher.publications import events_of
from tests.services.dispatcher.builders import GATEWAY

if TYPE_CHECKING:
    from tests.services.dispatcher.simulation.world import World

DOUBT = (Outcome.DOUBT, Outcome.DOUBT_BY_PEER)
ENDS = NEGATIVE_FINALS | {Status.IN_DOUBT, Status.SUBMITTED, Status.DELIVERED}

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
    """What is written to the carrier has its row, without an outcome, and its owner's lease was not called over before."""
    new = [s for s in world.submits if not s.checked]
    if not new:
        return
    legs = await stored(world, [s.sent.leg.event for s in new])
    for submit in new:
        submit.checked = True
        row = row_of(legs, submit.place)
        assert row is not None, "an attempt is written before its first byte"
        assert row.owner == submit.process.lease.instance, "who sends is who claimed"
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
    for message_id in world.ids:
        _what_is_shown_is_true(world, message_id, [leg for key, leg in legs.items() if key.message_id == message_id])


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
    """A bad end may be shown of what was accepted in part, or where an operator said so, and else of nothing that may be accepted."""
    view = world.shown(message_id)
    assert view.status in ENDS, f"it neither ends nor is in doubt: {view.status}"
    in_doubt = any(a.outcome in DOUBT for leg in legs for a in leg.attempts)
    taken = {s.place for s in world.submits if s.fate is Verdict.ACCEPTED and s.place[0] == message_id}
    if view.status is Status.IN_DOUBT:
        assert in_doubt, "shown in doubt, and nothing is"
    elif view.status is Status.SUBMITTED:
        parts = {place[3] for place in taken if place[1:3] == (view.cycle, view.leg)}
        assert len(parts) == legs[0].parts, "shown as sent, and not all of it was accepted"
    elif message_id not in world.said:
        if legs[0].parts == 1:
            assert not taken and not in_doubt, f"shown {view.status}, and it may have been accepted"
        elif view.status is Status.CANCELLED:
            assert not any(place[1] == view.cycle for place in taken), "shown cancelled, and a part was accepted"
