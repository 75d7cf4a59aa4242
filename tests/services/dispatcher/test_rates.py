"""A gateway's rate clock: which moments its claims are granted, on a real Postgres."""

from datetime import timedelta
from itertools import pairwise

import pytest

from libs.storage.database import Pool
from services.dispatcher.attempts import LegState
from services.dispatcher.ledger import Claim
from tests.services.dispatcher.builders import GATEWAY, dispatch_event
from tests.services.dispatcher.test_ledger import another, asks_of, claim, letters

STEP = timedelta(milliseconds=20)
STEP_US = 20_000
AFTER_THE_LAST = "SELECT next_at - (SELECT max(allowed_at) FROM attempts) FROM rates WHERE gateway = $1"
"""How long after what was granted last the next may leave."""


async def test_rate_grants_are_spaced_shared_by_replicas_and_bounded_to_a_quarter_second(pool: Pool):
    _, one = await another(pool, STEP_US)
    _, two = await another(pool, STEP_US)
    await pool.execute("INSERT INTO rates VALUES ('another', '2020-01-01Z')")
    first = await claim(one, *(LegState(dispatch_event()) for _ in range(40)))
    assert 12 <= len(first) <= 14
    gaps = [b.leave_seconds - a.leave_seconds for a, b in pairwise(first)]
    assert all(gap == pytest.approx(0.02, abs=0.001) for gap in gaps)
    assert len(await claim(two, *(LegState(dispatch_event()) for _ in range(40)))) <= 2, (
        "the clock is one for all replicas"
    )
    assert await pool.fetchval(AFTER_THE_LAST, GATEWAY) == STEP
    assert await pool.fetchval("SELECT next_at = '2020-01-01Z' FROM rates WHERE gateway = 'another'")


async def test_what_ends_in_a_claim_takes_no_moment(pool: Pool):
    _, ledger = await another(pool, STEP_US)
    legs = [LegState(dispatch_event(valid_seconds=seconds)) for seconds in (-1, 60, -1, -1, 60, 60)]
    verdicts = await claim(ledger, *legs)
    verdicts.sort(key=lambda verdict: legs.index(verdict.ask.leg))
    assert letters(verdicts) == "XGXXGG"
    assert [v.leave_seconds for v in verdicts if v.letter == "G"] == pytest.approx([0, 0.02, 0.04], abs=0.001)
    ends = "SELECT next_at - (SELECT max(allowed_at) FROM attempts WHERE outcome IS NULL) FROM rates"
    assert await pool.fetchval(ends) == STEP


async def test_time_in_which_nothing_left_is_not_made_up_for(pool: Pool):
    _, ledger = await another(pool, STEP_US)
    await pool.execute("UPDATE rates SET next_at = clock_timestamp() - interval '1 second'")
    granted = await claim(ledger, *(LegState(dispatch_event()) for _ in range(40)))
    assert granted[0].leave_seconds == 0 and len(granted) == 13


async def test_a_claim_that_comes_again_or_late_counts_its_moments_from_before_it_was_first_sent(pool: Pool):
    _, ledger = await another(pool, STEP_US)
    asked = Claim(1, asks_of(LegState(dispatch_event())), 0.0, 0.0, repeated=True)
    (late,) = await ledger.claim(asked, 7)
    assert late.leave_seconds == 7
    (again,) = await ledger.claim(asked, 9)
    assert 8 < again.leave_seconds <= 9, "the same moment"


@pytest.mark.parametrize(("lead", "most"), [(0.5, 38), (1.0, 63)])
async def test_a_claim_with_a_lead_gets_moments_from_then_on_and_for_as_much_longer(pool: Pool, lead: float, most: int):
    _, slow = await another(pool, STEP_US)
    _, other = await another(pool, STEP_US)
    asks = [ask for _ in range(80) for ask in asks_of(LegState(dispatch_event()))]
    ahead = await slow.claim(Claim(1, asks, 0.0, lead), 0.0)
    moments = [granted.leave_seconds for granted in ahead]
    assert moments == pytest.approx([lead + 0.02 * place for place in range(len(moments))], abs=0.005)
    assert len(moments) == most
    assert await claim(other, LegState(dispatch_event())) == [], "none goes before what is granted: the clock is one"
    assert await pool.fetchval(AFTER_THE_LAST, GATEWAY) == STEP, "nor is it set back"


async def test_a_rate_slower_than_the_horizon_still_grants_one_segment_at_a_time(pool: Pool):
    _, ledger = await another(pool, interval_us=5_000_000)
    legs = [LegState(dispatch_event()) for _ in range(3)]
    grants = await claim(ledger, *legs)
    assert [v.leave_seconds for v in grants] == [pytest.approx(0, abs=0.01)]
    assert await claim(ledger, LegState(dispatch_event())) == []


async def test_a_rate_clock_that_jumped_ahead_is_set_back(pool: Pool):
    _, ledger = await another(pool, STEP_US)
    await pool.execute("UPDATE rates SET next_at = now() + interval '1 hour'")
    assert letters(await claim(ledger, LegState(dispatch_event()))) == "G"
