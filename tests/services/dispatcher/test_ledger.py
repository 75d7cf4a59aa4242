"""The claim, the outcomes and the doubts, on a real Postgres."""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from libs.bus.port import Outgoing
from libs.contracts.events import Reason
from libs.storage.database import Pool
from services.dispatcher import ledger as statements
from services.dispatcher.attempts import CLOSING, Attempt, LegState, Outcome, join_reference, next_tries
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


@pytest.mark.parametrize("interval_us", [0, 1000])
async def test_a_part_is_granted_once_however_often_and_by_whom_it_is_asked_for(pool: Pool, interval_us: int):
    (_, ledger), (_, other) = await another(pool, interval_us), await another(pool, interval_us)
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


async def test_a_repeated_claim_hears_nothing_of_what_another_was_granted(ledger: Ledger, pool: Pool):
    _, other = await another(pool)
    leg = LegState(dispatch_event())
    assert letters(await claim(ledger, leg, number=1)) == "G"
    assert letters(await claim(other, leg, number=1, repeated=True)) == "K", "another instance's"
    assert letters(await claim(ledger, leg, number=2, repeated=True)) == "K", "from before the leg came again"


@pytest.mark.parametrize("text", ["one part", THREE_PARTS])
async def test_an_expired_message_takes_its_row_and_is_never_granted(ledger: Ledger, text: str):
    leg = LegState(dispatch_event(text, valid_seconds=-1))
    for repeated in (False, True):
        assert letters(await claim(ledger, leg, repeated=repeated)) == "X" * leg.parts
    stored = (await ledger.read([leg]))[leg.key]
    assert {(a.outcome, a.observed_at is not None) for a in stored} == {(Outcome.EXPIRED, True)}
    assert letters(await claim(ledger, LegState(leg.event), number=2)) == "K" * leg.parts


async def test_a_message_that_expires_between_its_parts_is_sent_no_further(ledger: Ledger, lease: Lease):
    leg = LegState(dispatch_event(THREE_PARTS))
    take(await ledger.claim(Claim(1, asks_of(leg)[:1], 0.0, 0.0), 0.0), lease)
    data = leg.event.data
    over = dataclasses.replace(data, message=dataclasses.replace(data.message, valid_until=leg.event.time))
    leg.event = dataclasses.replace(leg.event, data=over)
    assert letters(await claim(ledger, leg, number=2)) == "XX"


@pytest.mark.parametrize(("kind", "letter"), [("cancel", "C"), ("return", "R")])
@pytest.mark.parametrize("outcome", [None, "A", "D", "P"])
async def test_a_mark_ends_what_is_not_sent_and_binds_no_more_once_a_part_may_be_accepted(
    ledger: Ledger, lease: Lease, pool: Pool, outcome: str | None, kind: str, letter: str
):
    begun, alone = LegState(dispatch_event(THREE_PARTS)), LegState(dispatch_event())
    fresh, over = (LegState(dispatch_event(valid_seconds=-1)) for _ in range(2))  # a mark is heard before its validity
    first = await ledger.claim(Claim(1, asks_of(begun)[:1], 0.0, 0.0), 0.0)
    take(first, lease)
    await pool.execute('UPDATE attempts SET outcome = $1::text::"char"', outcome)
    for leg in (begun, fresh, alone, over):
        await pool.execute("INSERT INTO marks VALUES ($1, 1, $2, now())", leg.event.subject, kind)
    verdicts = await claim(ledger, fresh, begun, number=2)
    assert {(v.ask.leg is fresh, v.letter) for v in verdicts} == {(True, letter), (False, "G")}
    assert letters(await claim(ledger, alone, over, number=3)) == letter * 2


@pytest.mark.parametrize("text", ["one part", THREE_PARTS])
async def test_a_mark_returns_what_was_decided_before_it(ledger: Ledger, pool: Pool, text: str):
    leg, later = LegState(dispatch_event(text)), LegState(dispatch_event(text))
    await pool.execute("INSERT INTO marks VALUES ($1, 1, 'return', now())", leg.event.subject)
    await pool.execute("INSERT INTO marks VALUES ($1, 1, 'return', '2020-01-01Z')", later.event.subject)
    for kind in ("cancel", "return"):  # another cycle's
        await pool.execute("INSERT INTO marks VALUES ($1, 2, $2, now())", later.event.subject, kind)
    verdicts = await claim(ledger, leg, later)
    assert {v.letter for v in verdicts if v.ask.leg is leg} == {"R"}
    assert {v.letter for v in verdicts if v.ask.leg is later} == {"G"}
    assert {a.outcome for a in (await ledger.read([leg]))[leg.key]} == {Outcome.RETURNED}
    assert letters(await claim(ledger, LegState(leg.event), number=2)) == "K" * leg.parts


async def test_a_replica_of_the_older_release_is_answered_the_same(lease: Lease, pool: Pool):
    asked = """
        SELECT ord, verdict, leave_us
          FROM claim($1, 1, false, $2, 0, 7, ARRAY[$3::timestamptz], ARRAY[$4::uuid], '{1}'::smallint[], '{1}'::smallint[],
                     ARRAY[$5::timestamptz], ARRAY[$6::timestamptz], NULL, NULL, NULL, NULL, NULL)
    """
    verdicts: list[tuple[int, bytes, int]] = []
    for valid_seconds in (60, -60):
        event = dispatch_event(valid_seconds=valid_seconds)
        times = event.data.leg.leg_at, event.subject, event.data.message.valid_until, event.data.decided_at
        verdicts += [tuple(row) for row in await pool.fetch(asked, lease.instance, GATEWAY, *times)]
    assert verdicts == [(0, b"G", 7), (1, b"X", 7)]


async def locked_out(pool: Pool, deciding: asyncio.Task[Any]) -> None:
    """Return when it waits for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    await until(lambda: deciding.done() or pool.fetchval(waiting))
    assert not deciding.done()


async def test_a_claim_judges_by_what_has_become_true_while_others_had_the_gateways_lock(ledger: Ledger, pool: Pool):
    marked, expires = LegState(dispatch_event()), LegState(dispatch_event(valid_seconds=0.5))
    passed = "SELECT clock_timestamp() >= $1"
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM rates FOR UPDATE")
        claiming = asyncio.create_task(claim(ledger, marked, expires))
        await locked_out(pool, claiming)
        await other.execute("INSERT INTO marks VALUES ($1, 1, 'cancel', now())", marked.event.subject)
        await until(lambda: other.fetchval(passed, expires.event.data.message.valid_until))
    assert {v.ask.leg is marked: v.letter for v in await claiming} == {True: "C", False: "X"}


@pytest.mark.parametrize(
    "decide",
    [
        lambda ledger, leg: ledger.defer(leg, 5),
        lambda ledger, leg: ledger.reject(leg.event.data.leg.leg_at, leg.key, Reason("c", "w")),
        lambda ledger, leg: ledger.settle_late(answered(leg, 1, Outcome.ACCEPTED), True, False, lambda _: []),
    ],
)
async def test_what_ends_a_leg_beside_claims_waits_for_the_lock_that_they_take(
    ledger: Ledger, lease: Lease, pool: Pool, decide: Callable[[Ledger, LegState], Coroutine[Any, Any, object]]
):
    leg = LegState(dispatch_event())
    take(await claim(ledger, leg), lease)
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM rates FOR UPDATE")
        deciding = asyncio.create_task(decide(ledger, leg))
        await locked_out(pool, deciding)
    await deciding


async def test_a_dead_instance_is_granted_nothing_but_hears_what_it_was_granted_before(
    ledger: Ledger, lease: Lease, pool: Pool
):
    leg = LegState(dispatch_event())
    await claim(ledger, leg, number=1)
    await pool.execute("UPDATE instances SET dead = true WHERE instance = $1", lease.instance)
    assert letters(await claim(ledger, leg, number=1, repeated=True)) == "G"
    with pytest.raises(LeaseOver):
        await claim(ledger, LegState(dispatch_event()), number=2)


async def test_an_outcome_is_stored_once_and_stays(ledger: Ledger, lease: Lease, pool: Pool):
    leg = LegState(dispatch_event())
    take(await claim(ledger, leg), lease)
    _, other = await another(pool)
    not_its_own = answered(leg, 1, Outcome.FAILED)
    assert await other.settle([not_its_own]) == [not_its_own]
    assert await ledger.settle([answered(leg, 1, Outcome.ACCEPTED)]) == []
    second = answered(leg, 1, Outcome.FAILED)
    assert await ledger.settle([second]) == [second]
    row, events = await ledger.settle_late(second, True, False, lambda _: [])
    assert (row.outcome, events) == (Outcome.ACCEPTED, [])


@pytest.mark.parametrize("end", ["UPDATE instances SET dead = true", "DELETE FROM instances"])
async def test_doubt_is_declared_only_about_the_dead_also_those_of_long_ago(
    ledger: Ledger, lease: Lease, pool: Pool, end: str
):
    leg = LegState(dispatch_event())
    take(await claim(ledger, leg), lease)
    _, other = await another(pool)
    assert await other.declare_doubt([leg]) == 0
    known = (await other.read([leg]))[leg.key][0]
    assert (known.outcome, known.owner_dead) == (None, False)
    await pool.execute(f"{end} WHERE instance = $1", lease.instance)
    assert (await other.read([leg]))[leg.key][0].owner_dead
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


@pytest.mark.parametrize("doubt_opens_leg", [True, False])
async def test_a_late_refusal_keeps_when_the_doubt_opened_the_next_leg_if_it_did(
    ledger: Ledger, lease: Lease, doubt_opens_leg: bool
):
    leg = LegState(dispatch_event())
    take(await claim(ledger, leg), lease)
    doubt = answered(leg, 1, Outcome.DOUBT)
    await ledger.settle([doubt])
    row, _ = await ledger.settle_late(answered(leg, 1, Outcome.FAILED), False, doubt_opens_leg, lambda _: [])
    assert row.outcome is Outcome.LATE_FAILED
    assert row.leg_opened_at == (doubt.attempt.observed_at if doubt_opens_leg else None)
    assert (await ledger.read([leg]))[leg.key] == [row]


@pytest.mark.parametrize("closing", sorted(CLOSING))
async def test_nothing_is_claimed_in_a_leg_that_another_part_has_ended_meanwhile(
    ledger: Ledger, lease: Lease, pool: Pool, closing: Outcome
):
    leg = LegState(dispatch_event(THREE_PARTS))
    take(await ledger.claim(Claim(1, asks_of(leg)[:1], 0.0, 0.0), 0.0), lease)
    await pool.execute('UPDATE attempts SET outcome = $1::text::"char"', str(closing))
    assert letters(await claim(ledger, leg, number=2)) == "KK"


async def test_a_leg_that_holds_more_than_the_caller_knows_is_not_claimed(ledger: Ledger, pool: Pool):
    event = dispatch_event(THREE_PARTS)
    _, other = await another(pool)
    await other.claim(Claim(1, asks_of(LegState(event))[:1], 0.0, 0.0), 0.0)
    assert letters(await claim(ledger, LegState(event))) == "KKK"


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
