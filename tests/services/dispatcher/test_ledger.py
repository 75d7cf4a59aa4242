"""The claim, the outcomes and the doubts, on a real Postgres."""

import asyncio
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID

import pytest
from msgspec.structs import replace

from libs.bus.port import Outgoing
from libs.storage.database import Pool
from services.dispatcher import ledger as statements
from services.dispatcher.attempts import Attempt, LegState, Outcome, join_reference, next_tries
from services.dispatcher.lease import Lease, LeaseOver
from services.dispatcher.ledger import Ask, Claim, ClaimVerdict, Ledger, Settled
from tests.services.dispatcher.builders import GATEWAY, dispatch_event
from tests.waiting import until

THREE_PARTS = "x" * 400


def asks_of(*legs: LegState) -> list[Ask]:
    return [Ask(leg, part, try_number) for leg in legs for part, try_number in next_tries(leg)]


async def claim(ledger: Ledger, *legs: LegState, number: int = 1, repeated: bool = False) -> list[ClaimVerdict]:
    asked = Claim(number, asks_of(*legs), 0.0, 0.0, repeated=repeated)
    return await ledger.claim(asked, 0.0)


def letters(verdicts: list[ClaimVerdict]) -> str:
    return "".join(v.letter for v in verdicts)


def take(verdicts: list[ClaimVerdict], lease: Lease) -> None:
    """What the sender does with granted attempts."""
    for v in verdicts:
        v.ask.leg.attempts.append(Attempt(v.ask.part, v.ask.try_number, lease.instance, ours=True))


def answered(leg: LegState, part: int, outcome: Outcome, try_number: int = 1) -> Settled:
    known = next(a for a in leg.attempts if a.part == part and a.try_number == try_number)
    return Settled(
        leg,
        Attempt(
            part,
            try_number,
            known.owner,
            outcome,
            observed_at=datetime.now(UTC),
            provider_id="42",
            reason_code="c",
            reason_words="w",
        ),
    )


async def another(pool: Pool, interval_us: int = 0) -> tuple[Lease, Ledger]:
    lease = Lease(pool, GATEWAY, 5)
    await lease.register()
    return lease, Ledger(pool, GATEWAY, lease.instance, interval_us)


async def test_a_fresh_leg_is_granted_and_its_attempt_is_there_before_anything_is_sent(ledger: Ledger, lease: Lease):
    leg = LegState(dispatch_event(THREE_PARTS))
    assert letters(await claim(ledger, leg)) == "GGG"
    stored = (await ledger.read([leg]))[leg.key]
    assert [(a.part, a.outcome, a.owner) for a in stored] == [(p, None, lease.instance) for p in (1, 2, 3)]


async def test_the_number_that_joins_its_parts_is_stored_with_each_attempt(ledger: Ledger, pool: Pool):
    several, single = LegState(dispatch_event(THREE_PARTS)), LegState(dispatch_event())
    await claim(ledger, several, single)
    stored = await pool.fetch("SELECT message_id, reference FROM attempts GROUP BY 1, 2")
    assert {r["message_id"]: r["reference"] for r in stored} == {
        several.key.message_id: join_reference(several),
        single.key.message_id: 0,
    }
    assert len(stored) == 2


async def test_a_part_is_granted_once_however_often_and_by_whom_it_is_asked_for(ledger: Ledger, pool: Pool):
    _, other = await another(pool)
    event = dispatch_event()
    verdicts = await asyncio.gather(
        *(claim(who, LegState(event), number=n) for n in range(10) for who in (ledger, other))
    )
    assert sorted(letters(v) for v in verdicts) == ["G"] + ["K"] * 19


async def test_a_repeated_claim_gives_the_same_answer_and_takes_nothing_more(pool: Pool):
    _, ledger = await another(pool, interval_us=10_000)
    legs = [LegState(dispatch_event()) for _ in range(5)]
    first = await claim(ledger, *legs, number=3)
    again = await ledger.claim(Claim(3, asks_of(*legs), 0.0, 0.0, repeated=True), 0.5)
    assert letters(first) == letters(again) == "GGGGG"
    for a, b in zip(first, again, strict=True):
        assert a.ask.leg is b.ask.leg
        assert b.leave_seconds == pytest.approx(a.leave_seconds + 0.5, abs=0.4), "counts from before it was first sent"


async def test_a_repeated_claim_that_never_arrived_is_a_first_one(ledger: Ledger):
    assert letters(await claim(ledger, LegState(dispatch_event()), repeated=True)) == "G"


async def test_an_expired_message_takes_its_row_and_is_never_granted(ledger: Ledger):
    leg = LegState(dispatch_event(valid_seconds=-1))
    assert letters(await claim(ledger, leg)) == "X"
    assert (await ledger.read([leg]))[leg.key][0].outcome is Outcome.EXPIRED
    assert letters(await claim(ledger, LegState(leg.event), number=2)) == "K"


async def test_a_mark_cancels_what_is_not_sent_and_binds_no_more_once_a_part_may_be_accepted(
    ledger: Ledger, lease: Lease, pool: Pool
):
    begun, fresh = LegState(dispatch_event(THREE_PARTS)), LegState(dispatch_event())
    first = await ledger.claim(Claim(1, asks_of(begun)[:1], 0.0, 0.0), 0.0)
    take(first, lease)
    for leg in (begun, fresh):
        await pool.execute("INSERT INTO marks VALUES ($1, 1, 'cancel', now())", leg.event.subject)
    verdicts = await claim(ledger, fresh, begun, number=2)
    assert {(v.ask.leg is fresh, v.letter) for v in verdicts} == {(True, "C"), (False, "G")}


@pytest.mark.parametrize("text", ["one part", THREE_PARTS])
async def test_a_mark_returns_what_was_decided_before_it(ledger: Ledger, pool: Pool, text: str):
    leg, later = LegState(dispatch_event(text)), LegState(dispatch_event(text))
    await pool.execute("INSERT INTO marks VALUES ($1, 1, 'return', now())", leg.event.subject)
    await pool.execute("INSERT INTO marks VALUES ($1, 1, 'return', '2020-01-01Z')", later.event.subject)
    verdicts = await claim(ledger, leg, later)
    assert {v.letter for v in verdicts if v.ask.leg is leg} == {"R"}
    assert {v.letter for v in verdicts if v.ask.leg is later} == {"G"}
    assert {a.outcome for a in (await ledger.read([leg]))[leg.key]} == {Outcome.RETURNED}
    assert letters(await claim(ledger, LegState(leg.event), number=2)) == "K" * leg.parts


async def test_rate_grants_are_spaced_shared_by_replicas_and_bounded_to_a_quarter_second(pool: Pool):
    _, one = await another(pool, interval_us=20_000)
    _, two = await another(pool, interval_us=20_000)
    first = await claim(one, *(LegState(dispatch_event()) for _ in range(40)))
    assert 12 <= len(first) <= 14
    gaps = [b.leave_seconds - a.leave_seconds for a, b in pairwise(first)]
    assert all(gap == pytest.approx(0.02, abs=0.001) for gap in gaps)
    assert len(await claim(two, *(LegState(dispatch_event()) for _ in range(40)))) <= 2, (
        "the clock is one for all replicas"
    )


async def test_a_claim_with_a_lead_gets_moments_from_then_on_and_for_as_much_longer(pool: Pool):
    _, slow = await another(pool, interval_us=20_000)
    _, other = await another(pool, interval_us=20_000)
    asks = [ask for _ in range(60) for ask in asks_of(LegState(dispatch_event()))]
    ahead = await slow.claim(Claim(1, asks, 0.0, lead_seconds=0.5), 0.0)
    moments = [granted.leave_seconds for granted in ahead]
    assert moments == pytest.approx([0.5 + 0.02 * place for place in range(len(moments))], abs=0.005)
    assert 38 <= len(moments) <= 39
    assert await claim(other, LegState(dispatch_event())) == [], "none goes before what is granted: the clock is one"


async def test_a_rate_slower_than_the_horizon_still_grants_one_segment_at_a_time(pool: Pool):
    _, ledger = await another(pool, interval_us=2_000_000)
    legs = [LegState(dispatch_event()) for _ in range(3)]
    grants = await claim(ledger, *legs)
    assert [v.leave_seconds for v in grants] == [pytest.approx(0, abs=0.01)]
    assert await claim(ledger, LegState(dispatch_event())) == []


async def test_a_rate_clock_that_jumped_ahead_is_set_back(pool: Pool):
    _, ledger = await another(pool, interval_us=20_000)
    await pool.execute("UPDATE rates SET next_at = now() + interval '1 hour'")
    assert letters(await claim(ledger, LegState(dispatch_event()))) == "G"


async def test_a_dead_instance_is_granted_nothing_but_hears_what_it_was_granted_before(
    ledger: Ledger, lease: Lease, pool: Pool
):
    leg = LegState(dispatch_event())
    await claim(ledger, leg, number=1)
    await pool.execute("UPDATE instances SET dead = true WHERE instance = $1", lease.instance)
    assert letters(await claim(ledger, leg, number=1, repeated=True)) == "G"
    with pytest.raises(LeaseOver):
        await claim(ledger, LegState(dispatch_event()), number=2)


async def test_an_outcome_is_stored_once_and_stays(ledger: Ledger, lease: Lease):
    leg = LegState(dispatch_event())
    take(await claim(ledger, leg), lease)
    assert await ledger.settle([answered(leg, 1, Outcome.ACCEPTED)]) == []
    second = answered(leg, 1, Outcome.FAILED)
    assert await ledger.settle([second]) == [second]
    row, events = await ledger.settle_late(second, True, False, lambda _: [])
    assert (row.outcome, events) == (Outcome.ACCEPTED, [])


async def test_doubt_is_declared_only_about_the_dead(ledger: Ledger, lease: Lease, pool: Pool):
    leg = LegState(dispatch_event())
    take(await claim(ledger, leg), lease)
    _, other = await another(pool)
    assert await other.declare_doubt([leg]) == 0
    assert (await other.read([leg]))[leg.key][0].outcome is None
    await lease.release()
    assert await other.declare_doubt([leg]) == 1
    assert await other.declare_doubt([leg]) == 0
    row = (await other.read([leg]))[leg.key][0]
    assert (row.outcome, row.owner_dead) == (Outcome.DOUBT_BY_PEER, True)


@pytest.mark.parametrize(
    ("answer", "becomes", "events"),
    [
        (Outcome.ACCEPTED, Outcome.ACCEPTED, 1),
        (Outcome.TEMPORARY, Outcome.LATE_RETURNED, 1),
        (Outcome.NOT_SENT, Outcome.LATE_RETURNED, 1),
        (Outcome.FAILED, Outcome.LATE_FAILED, 1),
        (Outcome.DOUBT, Outcome.DOUBT_BY_PEER, 0),
    ],
)
async def test_a_late_answer_is_stored_with_its_events_which_whoever_outlives_the_owner_finds(
    ledger: Ledger, lease: Lease, pool: Pool, answer: Outcome, becomes: Outcome, events: int
):
    leg = LegState(dispatch_event())
    take(await claim(ledger, leg), lease)
    await pool.execute("UPDATE attempts SET outcome = 'P'")
    late = answered(leg, 1, answer)
    assert await ledger.settle([late]) == [late]
    row, stored = await ledger.settle_late(late, True, False, lambda _: [Outgoing("t", b"k", b"v")])
    assert (row.outcome, len(stored)) == (becomes, events)
    _, other = await another(pool)
    assert await other.orphaned_events(10) == []
    await lease.release()
    assert await other.orphaned_events(10) == stored
    await other.forget_events(stored)
    assert await other.orphaned_events(10) == []


async def test_nothing_is_claimed_in_a_leg_that_late_proof_has_closed(ledger: Ledger, lease: Lease, pool: Pool):
    leg = LegState(dispatch_event(THREE_PARTS))
    take(await ledger.claim(Claim(1, asks_of(leg)[:1], 0.0, 0.0), 0.0), lease)
    await pool.execute("UPDATE attempts SET outcome = 'n'")
    assert letters(await claim(ledger, leg, number=2)) == "KK"


async def test_a_leg_that_holds_more_than_the_caller_knows_is_not_claimed(ledger: Ledger, pool: Pool):
    event = dispatch_event(THREE_PARTS)
    _, other = await another(pool)
    await other.claim(Claim(1, asks_of(LegState(event))[:1], 0.0, 0.0), 0.0)
    assert letters(await claim(ledger, LegState(event))) == "KKK"


async def test_one_slot_is_held_by_one_and_passes_on_when_its_holder_is_dead(pool: Pool):
    (first, _), (second, _) = await another(pool), await another(pool)
    assert await first.take_slot(1) == 1
    assert await first.take_slot(1) == 1, "the answer was lost"
    assert await second.take_slot(1) is None
    await first.release()
    assert await second.take_slot(1) == 1


async def test_many_instances_take_each_slot_once(pool: Pool):
    standing_by = [(await another(pool))[0] for _ in range(8)]
    slots = await asyncio.gather(*(lease.take_slot(3) for lease in standing_by))
    assert sorted(slot for slot in slots if slot is not None) == [1, 2, 3]


async def test_a_peer_whose_beat_stands_still_is_marked_dead_and_one_that_beats_is_not(pool: Pool):
    watcher, silent, lively = (Lease(pool, GATEWAY, 0.3) for _ in range(3))
    for lease in (watcher, silent, lively):
        await lease.register()
    async with asyncio.timeout(20):
        while not await pool.fetchval("SELECT dead FROM instances WHERE instance = $1", silent.instance):
            await lively.beat()
            await watcher.beat()
            await asyncio.sleep(0.05)
    assert not await pool.fetchval("SELECT dead FROM instances WHERE instance = $1", lively.instance)
    await silent.beat()
    assert not silent.valid, "a lapsed lease is never renewed"


async def test_a_peer_is_judged_by_the_length_of_its_own_lease_and_by_ours_if_it_has_told_none(pool: Pool):
    watcher, longer, older_release = (Lease(pool, GATEWAY, seconds) for seconds in (0.2, 60, 60))
    for lease in (watcher, longer, older_release):
        await lease.register()
    await pool.execute("UPDATE instances SET lease_seconds = NULL WHERE instance = $1", older_release.instance)

    async def dead() -> list[UUID]:
        await watcher.beat()
        return [row["instance"] for row in await pool.fetch("SELECT instance FROM instances WHERE dead")]

    assert await until(dead) == [older_release.instance]


async def test_a_message_is_deferred_once_and_only_while_nobody_has_claimed_its_next_try(ledger: Ledger, lease: Lease):
    def refused(leg: LegState) -> list[Settled]:
        return [answered(leg, part, Outcome.TEMPORARY) for part in (1, 2, 3)]

    under_way, free = LegState(dispatch_event(THREE_PARTS)), LegState(dispatch_event(THREE_PARTS))
    take(await claim(ledger, under_way, free), lease)
    await ledger.settle([*refused(under_way), *refused(free)])
    for leg in (under_way, free):
        leg.attempts = (await ledger.read([leg]))[leg.key]
    assert letters(await claim(ledger, under_way, number=2)) == "GGG"
    assert await ledger.defer(under_way, tries=5) is None
    row = await ledger.defer(free, tries=5)
    assert row is not None and row in [replace(a, owner_dead=False) for a in (await ledger.read([free]))[free.key]]
    assert await ledger.defer(free, tries=5) is None
    assert letters(await claim(ledger, free, number=3)) == "KKK"


@pytest.mark.parametrize("statement", [statements._READ, statements._DECLARE_DOUBT])
async def test_a_plan_that_was_made_while_there_were_few_attempts_looks_up_by_key(pool: Pool, statement: str):
    """A connection keeps its plan while a partition grows, until that is analysed."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")  # as after some executions
        await connection.execute(f"PREPARE asked (text, text, text, text) AS {statement}")
        rows = await connection.fetch("EXPLAIN EXECUTE asked ('{}', '{}', '{}', '{}')")
        await connection.execute("DEALLOCATE asked")
    plan = "\n".join(row[0] for row in rows)
    assert "attempts_default_pkey" in plan and "Seq Scan" not in plan
