from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from libs.contracts.events import Encoding, Reason
from libs.contracts.statuses import Status
from libs.storage.database import Pool
from services.resolver.deciding import Decision, Dispatch, Ended
from services.resolver.decisions import Coordinates, settle
from tests.services.opposite_orders import in_opposite_orders
from tests.services.resolver.builders import NOW, PHONE, new_message_id

GOES_OUT = Dispatch(NOW, "demo", PHONE, "Jane Doe", None, Encoding.UCS2, 3)
ENDS = Ended(NOW, Status.EXPIRED, Reason("validity_over", "its validity was over before it could be sent"))


def some_leg() -> Coordinates:
    return Coordinates(NOW, new_message_id(), 1, 1)


async def test_new_decisions_count_as_they_are_made(pool: Pool):
    made: dict[Coordinates, Decision] = {some_leg(): GOES_OUT, some_leg(): ENDS}
    assert await settle(pool, made) == made


async def test_what_was_decided_first_counts_from_then_on(pool: Pool):
    first, second, third = some_leg(), some_leg(), some_leg()
    await settle(pool, {first: GOES_OUT, second: ENDS})
    later = NOW + timedelta(hours=1)
    anew = GOES_OUT._replace(decided_at=later, phone="+254700000000", gateway="other")
    assert await settle(pool, {third: anew, second: anew, first: anew}) == {
        first: GOES_OUT,
        second: ENDS,
        third: anew,
    }


async def test_each_leg_and_cycle_is_decided_by_itself(pool: Pool):
    at = some_leg()
    other = GOES_OUT._replace(gateway="other")
    await settle(pool, {at: GOES_OUT})
    for another in (at._replace(leg=2), at._replace(cycle=2), at._replace(leg_at=NOW + timedelta(seconds=1))):
        assert await settle(pool, {another: other}) == {another: other}


async def test_two_instances_with_the_same_legs_wait_for_each_other_in_whatever_order_they_came(pool: Pool):
    async def decide(its: Pool, legs: Sequence[Coordinates]) -> Mapping[Coordinates, Decision]:
        return await settle(its, dict.fromkeys(legs, GOES_OUT))

    legs = [some_leg() for _ in range(3)]
    assert await in_opposite_orders(pool, decide, legs) == [dict.fromkeys(legs, GOES_OUT)] * 2


async def test_a_leg_of_a_time_that_nobody_foresaw_is_stored(pool: Pool):
    at = Coordinates(datetime(2001, 1, 1, tzinfo=UTC), new_message_id(), 1, 1)
    await settle(pool, {at: GOES_OUT})
    assert await settle(pool, {at: ENDS}) == {at: GOES_OUT}
