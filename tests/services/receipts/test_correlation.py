"""Submits, receipts and doubts against a real PostgreSQL, in every order."""

from typing import Any

import pytest

from libs.contracts.events import Leg, Reason, ReceiptState
from libs.contracts.statuses import RANK, Status
from libs.storage.database import Pool
from services.receipts import store
from services.receipts.handlers import outgoing
from services.receipts.matching import Match
from tests.services.receipts.examples import (
    GATEWAY,
    NOON,
    OTHER_DESTINATION,
    TRACE,
    disproved,
    in_doubt,
    message_id,
    nameless,
    published,
    receipt,
    seconds,
    submitted,
    take,
    trace,
    traces,
)

TRACE_ID = trace(1)[3:35]


def told(matches: list[Match]) -> list[tuple[int, int, str]]:
    """(message, part, status) of what is published."""
    first = message_id(0).int
    return [(e.subject.int - first, e.data.part, str(e.data.status)) for e in published(outgoing(matches))]


def values(matches: list[Match]) -> list[bytes | None]:
    return [value for _, value in outgoing(matches)]


def ids(matches: list[Match]) -> list[str]:
    return [event.id for event in published(outgoing(matches))]


async def parked(pool: Pool) -> list[str]:
    async with pool.acquire() as connection:
        return [r.provider_id for r in await store.unmatched(connection, GATEWAY, 100)]


async def test_a_receipt_after_its_submit_is_published(pool: Pool) -> None:
    assert await take_in(pool, submitted("a")) == []
    assert told(await take_in(pool, receipt("a"))) == [(1, 1, "delivered")]
    assert await parked(pool) == []


async def test_an_early_receipt_is_parked_and_published_by_the_submit(pool: Pool) -> None:
    assert await take_in(pool, receipt("a", at=-1)) == []
    assert await parked(pool) == ["a"]
    assert told(await take_in(pool, submitted("a"))) == [(1, 1, "delivered")]
    assert await parked(pool) == []


async def test_a_receipt_that_was_parked_still_says_the_carriers_word(pool: Pool) -> None:
    early, submit = receipt("a", ReceiptState.ENROUTE, at=-1, word="SUBMITD", error="000"), submitted("a")
    assert await take_in(pool, early) == []
    found = await take_in(pool, submit)
    (event,) = published(outgoing(found))
    assert event.data.reason == Reason("receipt.enroute", "the carrier says SUBMITD, err 000")
    assert values(await take_in(pool, early)) == values(found)


async def test_both_in_one_batch_are_published_at_once(pool: Pool) -> None:
    assert told(await take_in(pool, receipt("a"), submitted("a"))) == [(1, 1, "delivered")]


async def test_what_comes_again_is_published_again_under_the_same_ids(pool: Pool) -> None:
    early, late, submit = receipt("a", ReceiptState.ENROUTE, at=-1), receipt("a", at=5), submitted("a")
    assert await take_in(pool, early) == []
    assert told(await take_in(pool, early)) == []
    by_submit = ids(await take_in(pool, submit))
    assert ids(await take_in(pool, submit, submit)) == by_submit
    assert ids(await take_in(pool, early)) == by_submit
    by_receipt = ids(await take_in(pool, late))
    assert ids(await take_in(pool, late)) == by_receipt
    assert await parked(pool) == []


class TestTraces:
    """What is told of a message is in its trace, and comes again to the byte."""

    @pytest.mark.parametrize("at", [-1, 2], ids=["parked", "looked up"])
    async def test_of_an_attempt_that_was_submitted(self, pool: Pool, at: float) -> None:
        submit, came = submitted("a"), receipt("a", at=at)
        first, second = (came, submit) if at < 0 else (submit, came)
        assert await take_in(pool, first) == []
        found = await take_in(pool, second)
        assert traces(published(outgoing(found))) == [TRACE_ID]
        assert values(await take_in(pool, came)) == values(await take_in(pool, second)) == values(found)

    async def test_of_an_id_that_is_given_anew(self, pool: Pool) -> None:
        await take_in(pool, submitted("a", 2, observed_at=seconds(-9)))
        await take_in(pool, submitted("a"))
        assert traces(published(outgoing(await take_in(pool, receipt("a"))))) == [TRACE_ID]

    @pytest.mark.parametrize("doubt", [in_doubt(7), nameless(7)], ids=["in doubt", "nameless"])
    async def test_of_an_attempt_that_a_receipt_has_named(self, pool: Pool, doubt: Any) -> None:
        await take_in(pool, doubt)
        naming, later = receipt("a", ReceiptState.ENROUTE, reference=7), receipt("a", at=9)
        found = await take_in(pool, naming)
        after = await take_in(pool, later)
        assert traces(published(outgoing(found + after))) == [TRACE_ID] * 3
        assert values(await take_in(pool, naming)) == values(found)
        assert values(await take_in(pool, later)) == values(after)

    async def test_of_an_attempt_whose_doubt_was_answered_late(self, pool: Pool) -> None:
        await take_in(pool, in_doubt(7))
        await take_in(pool, submitted("a"))
        assert traces(published(outgoing(await take_in(pool, receipt("a"))))) == [TRACE_ID]

    async def test_a_row_without_it_is_told_of_in_the_receipts(self, pool: Pool) -> None:
        submit, came, naming = submitted("a"), receipt("a"), receipt("b", reference=7)
        await take_in(pool, submit, in_doubt(7, message=2))
        for table in ("provider_ids", "doubts"):
            await pool.execute(f"UPDATE {table} SET trace_id = NULL")
        for event, statuses in ((came, 1), (naming, 2)):
            found = await take_in(pool, event)
            assert [e.traceparent for e in published(outgoing(found))] == [TRACE] * statuses
            await take_in(pool, submit, in_doubt(7, message=2))
            assert values(await take_in(pool, event)) == values(found)


async def test_each_of_three_parts_has_its_own_receipt(pool: Pool) -> None:
    parts = [submitted(f"id-{n}", part=n, parts=3) for n in (1, 2, 3)]
    assert await take_in(pool, receipt("id-3", at=-1)) == []
    assert told(await take_in(pool, *parts)) == [(1, 3, "delivered")]
    found = told(await take_in(pool, receipt("id-2", ReceiptState.UNDELIVERABLE), receipt("id-1")))
    assert sorted(found) == [(1, 1, "delivered"), (1, 2, "failed")]


async def test_a_receipt_of_another_number_is_parked(pool: Pool) -> None:
    await take_in(pool, submitted("a"))
    assert await take_in(pool, receipt("a", destination=OTHER_DESTINATION)) == []
    assert await parked(pool) == ["a"]
    assert await take_in(pool, submitted("a")) == []


async def test_a_parked_receipt_of_another_number_stays_in_sight_when_one_under_its_id_is_matched(pool: Pool) -> None:
    await take_in(pool, receipt("a", at=-1), receipt("a", at=-1, destination=OTHER_DESTINATION))
    assert told(await take_in(pool, submitted("a"))) == [(1, 1, "delivered")]
    assert await parked(pool) == ["a"]


async def test_a_receipt_that_names_no_number_is_published(pool: Pool) -> None:
    await take_in(pool, submitted("a"))
    assert told(await take_in(pool, receipt("a", destination=""))) == [(1, 1, "delivered")]


async def test_an_id_used_again_for_another_number_is_told_apart_by_it(pool: Pool) -> None:
    await take_in(pool, submitted("a", message=1))
    early = receipt("a", at=9, destination=OTHER_DESTINATION)
    assert await take_in(pool, early) == []
    again = submitted("a", message=2, destination=OTHER_DESTINATION, observed_at=seconds(10))
    assert told(await take_in(pool, again)) == [(2, 1, "delivered")]
    assert told(await take_in(pool, receipt("a", at=20))) == [(1, 1, "delivered")]
    assert told(await take_in(pool, early)) == [(2, 1, "delivered")]
    assert await parked(pool) == []


async def test_an_id_used_again_for_the_same_number_belongs_to_the_newest_at_the_receipts_time(pool: Pool) -> None:
    uses = [submitted("a", message=n, observed_at=seconds(100 * n)) for n in (1, 2, 3)]
    await take_in(pool, uses[0])
    await take_in(pool, uses[1], uses[2])
    before, between, after = receipt("a", at=150), receipt("a", at=250), receipt("a", at=350)
    for _ in range(2):
        assert told(await take_in(pool, before)) == [(1, 1, "delivered")]
        assert told(await take_in(pool, after, between)) == [(3, 1, "delivered"), (2, 1, "delivered")]
        await take_in(pool, *uses)


async def test_the_same_id_of_another_gateway_is_another_id(pool: Pool) -> None:
    await take_in(pool, submitted("a", message=1), submitted("a", message=2, gateway="other"))
    assert told(await take_in(pool, receipt("a", gateway="other"))) == [(2, 1, "delivered")]


async def test_a_late_attempt_of_one_message_under_the_id_of_an_earlier_one_is_kept_apart(pool: Pool) -> None:
    await take_in(pool, submitted("a"), submitted("a", leg=Leg(2, 1, seconds(50)), observed_at=seconds(60)))
    (found,) = published(outgoing(await take_in(pool, receipt("a", at=70))))
    assert found.data.leg == Leg(2, 1, seconds(50))


async def test_only_receipts_that_still_wait_are_shown_newest_first(pool: Pool) -> None:
    await take_in(pool, receipt("a", at=1), receipt("b", at=3), receipt("c", at=2), receipt("d", at=4, gateway="other"))
    await take_in(pool, submitted("b"))
    assert await parked(pool) == ["c", "a"]
    async with pool.acquire() as connection:
        assert [r.provider_id for r in await store.unmatched(connection, None, 2)] == ["d", "c"]


class TestDoubts:
    async def test_a_receipt_with_the_reference_ends_the_doubt(self, pool: Pool) -> None:
        assert await take_in(pool, in_doubt(7)) == []
        resolving = receipt("a", reference=7)
        found = await take_in(pool, resolving)
        assert told(found) == [(1, 1, "submitted"), (1, 1, "delivered")]
        assert ids(await take_in(pool, resolving)) == ids(found)
        assert await parked(pool) == []

    async def test_the_doubt_may_come_after_the_receipt(self, pool: Pool) -> None:
        early = receipt("a", at=-3, reference=7)
        assert await take_in(pool, early) == []
        found = await take_in(pool, in_doubt(7))
        assert told(found) == [(1, 1, "submitted"), (1, 1, "delivered")]
        assert ids(await take_in(pool, in_doubt(7))) == ids(found)
        assert ids(await take_in(pool, early)) == ids(found)
        assert await parked(pool) == []

    async def test_what_the_service_has_said_itself_brings_nothing_more(self, pool: Pool) -> None:
        await take_in(pool, receipt("a", at=-3, reference=7))
        said = published(outgoing(await take_in(pool, in_doubt(7))))
        assert [event.data.status for event in said] == ["submitted", "delivered"]
        assert await take_in(pool, *said) == []

    async def test_the_id_is_known_from_then_on(self, pool: Pool) -> None:
        await take_in(pool, in_doubt(7))
        await take_in(pool, receipt("a", ReceiptState.ENROUTE, reference=7))
        assert told(await take_in(pool, receipt("a", at=9, reference=7))) == [(1, 1, "delivered")]
        assert await take_in(pool, submitted("a", observed_at=seconds(2))) == []

    async def test_a_receipt_with_the_reference_names_what_was_accepted_without_an_id(self, pool: Pool) -> None:
        accepted = nameless(7)
        await take_in(pool, accepted)
        found = await take_in(pool, receipt("a", ReceiptState.ENROUTE, reference=7), receipt("a", at=3))
        assert told(found) == [(1, 1, "submitted"), (1, 1, "buffered"), (1, 1, "delivered")]
        ranks = [RANK[e.data.status] for e in (accepted, *published(outgoing(found)))]
        assert ranks == sorted(ranks)

    async def test_receipts_parked_under_the_id_are_published_with_the_one_that_names_it(self, pool: Pool) -> None:
        without = receipt("a", ReceiptState.ENROUTE, at=1, destination="")
        naming = receipt("a", at=3, reference=7)
        await take_in(pool, in_doubt(7))
        assert await take_in(pool, without) == []
        found = await take_in(pool, naming)
        assert told(found) == [(1, 1, "buffered"), (1, 1, "submitted"), (1, 1, "delivered")]
        assert ids(await take_in(pool, naming)) == ids(found)

    async def test_receipts_of_one_batch_share_the_id_that_one_of_them_names(self, pool: Pool) -> None:
        await take_in(pool, in_doubt(7))
        batch = [receipt("a", ReceiptState.ENROUTE, at=1, reference=7), receipt("a", at=3)]
        assert told(await take_in(pool, *batch)) == [(1, 1, "submitted"), (1, 1, "buffered"), (1, 1, "delivered")]

    @pytest.mark.parametrize(
        "doubts",
        [
            [in_doubt(8)],
            [in_doubt(7, destination=OTHER_DESTINATION)],
            [in_doubt(7, gateway="other")],
            [in_doubt(7, observed_at=seconds(-73 * 3600))],
            [in_doubt(7, message=1), in_doubt(7, message=2)],
        ],
        ids=["reference", "number", "gateway", "too old", "two of them"],
    )
    async def test_a_doubt_that_does_not_fit_alone_stays(self, pool: Pool, doubts: list[Any]) -> None:
        await take_in(pool, *doubts)
        assert await take_in(pool, receipt("a", reference=7)) == []
        assert await parked(pool) == ["a"]

    async def test_a_receipt_that_names_no_number_ends_no_doubt(self, pool: Pool) -> None:
        await take_in(pool, in_doubt(7))
        assert await take_in(pool, receipt("a", reference=7, destination="")) == []

    async def test_a_doubt_ends_once(self, pool: Pool) -> None:
        await take_in(pool, in_doubt(7))
        found = await take_in(pool, receipt("b", at=2, reference=7), receipt("a", at=1, reference=7))
        assert {e.data.provider_id for e in published(outgoing(found))} == {"a"}
        assert await take_in(pool, receipt("c", reference=7)) == []
        assert sorted(await parked(pool)) == ["b", "c"]

    async def test_a_late_answer_ends_the_doubt_too(self, pool: Pool) -> None:
        await take_in(pool, in_doubt(7))
        await take_in(pool, submitted("a"))
        assert await take_in(pool, receipt("b", reference=7)) == []

    @pytest.mark.parametrize("status", [Status.REFUSED, Status.FAILED])
    async def test_what_is_disproved_ends_with_no_receipt(self, pool: Pool, status: Status) -> None:
        doubt, proof = in_doubt(7), disproved(7, status=status)
        for events in ([doubt], [proof], [doubt, proof]):  # and all of it again
            await take_in(pool, *events)
        assert await take_in(pool, receipt("a", reference=7)) == []
        assert await parked(pool) == ["a"]

    @pytest.mark.parametrize("together", [True, False])
    async def test_so_does_what_is_disproved_before_it_is_told_to_be_in_doubt(self, pool: Pool, together: bool) -> None:
        doubt, proof = in_doubt(7), disproved(7)
        for events in ([proof, doubt],) if together else ([proof], [doubt]):
            await take_in(pool, *events)
        assert await take_in(pool, receipt("a", reference=7)) == []

    async def test_a_doubt_that_a_receipt_has_ended_is_not_disproved(self, pool: Pool) -> None:
        await take_in(pool, in_doubt(7))
        found = await take_in(pool, naming := receipt("a", reference=7))
        await take_in(pool, disproved(7))
        assert ids(await take_in(pool, naming)) == ids(found)
        assert await pool.fetchval("SELECT provider_id FROM doubts") == "a"

    async def test_two_doubts_are_told_apart_once_one_has_ended(self, pool: Pool) -> None:
        await take_in(pool, in_doubt(7, message=1), in_doubt(7, message=2))
        await take_in(pool, submitted("a", message=1))
        assert told(await take_in(pool, receipt("b", reference=7))) == [(2, 1, "submitted"), (2, 1, "delivered")]


async def take_in(pool: Pool, *events: Any) -> list[Match]:
    async with pool.acquire() as connection:
        return await take(connection, *events)


async def test_what_is_stored_holds_no_number(pool: Pool) -> None:
    await take_in(pool, submitted("a"), in_doubt(7, message=2), receipt("b"))
    async with pool.acquire() as connection:
        for table in ("provider_ids", "parked", "doubts"):
            text = str(await connection.fetchval(f"SELECT json_agg(t)::text FROM {table} AS t"))
            assert "demo" in text
            assert "700000001" not in text


async def test_a_registration_keeps_its_first_time(pool: Pool) -> None:
    await take_in(pool, submitted("a"))
    await take_in(pool, submitted("a", observed_at=seconds(99)))
    async with pool.acquire() as connection:
        known, _ = await store.read(connection, [(GATEWAY, "a")])
    assert [r.registered_at for r in known[GATEWAY, "a"]] == [NOON]
