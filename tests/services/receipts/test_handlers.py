import time
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from libs.bus.batch import Batch
from libs.bus.errors import BadRecord
from libs.bus.memory import MemoryBus
from libs.bus.record import Record
from libs.contracts import topics
from libs.contracts.events import LONGEST_PROVIDER_ID
from libs.contracts.statuses import Status
from libs.service_kit.metrics import RECEIPTS_MATCHED, RECEIPTS_PARKED
from libs.storage.database import Pool
from services.receipts import handlers
from services.receipts.handlers import HOLD_SECONDS, sort_out
from services.receipts.recent import RecentRegistrations
from tests.services.receipts.examples import (
    KEY,
    attempt_status,
    disproved,
    in_doubt,
    message_id,
    nameless,
    published,
    receipt,
    seconds,
    submitted,
    unasked,
)


def test_only_submits_with_an_id_doubts_with_a_reference_and_receipts_concern_us() -> None:
    events = [submitted("a"), in_doubt(7), disproved(8), nameless(9), receipt("b"), unasked(message=3)]
    registrations, doubts, receipts, not_reported = sort_out(events, KEY)
    assert [r.provider_id for r in registrations] == ["a"]
    assert [(d.reference, d.disproved) for d in doubts] == [(7, False), (8, True), (9, False)]
    assert [r.provider_id for r in receipts] == ["b"]
    assert [a.message_id for a in not_reported] == [message_id(3)]


@pytest.mark.parametrize(
    "event",
    [
        attempt_status(status=Status.DELIVERED, provider_id="a"),
        attempt_status(status=Status.FAILED),
        attempt_status(status=Status.SUBMITTED, provider_id=None),
        attempt_status(status=Status.SUBMITTED, provider_id=""),
        attempt_status(status=Status.SUBMITTED, provider_id="a", gateway=None),
        attempt_status(status=Status.IN_DOUBT, reference=None),
        attempt_status(status=Status.IN_DOUBT, reference=7, destination=None),
    ],
)
def test_any_other_status_is_skipped(event: object) -> None:
    assert sort_out([event], KEY) == ([], [], [], [])


@pytest.mark.parametrize("destination", ["", "BANK", "+", "BANK24", "2547****0001", "7654321", "07654321"])
def test_a_destination_that_is_no_whole_number_says_nothing(destination: str) -> None:
    _, _, receipts, _ = sort_out([receipt("a", destination=destination)], KEY)
    assert receipts[0].destination is None


def test_spellings_of_one_number_have_one_fingerprint() -> None:
    spellings = ("+254700000001", "254700000001", "00254700000001", "0700000001", "(0700) 000-001")
    _, _, receipts, _ = sort_out([receipt("a", destination=d) for d in spellings], KEY)
    assert len({r.destination for r in receipts}) == 1


def test_the_longest_id_that_can_be_registered_is_taken() -> None:
    _, _, receipts, _ = sort_out([receipt("a" * LONGEST_PROVIDER_ID)], KEY)
    assert len(receipts) == 1


@pytest.mark.parametrize("provider_id", ["", "a\0b", "a" * (LONGEST_PROVIDER_ID + 1)])
def test_a_receipt_without_a_usable_id_is_a_bad_record(provider_id: str) -> None:
    with pytest.raises(BadRecord, match="provider_id"):
        sort_out([receipt(provider_id)], KEY)


def record(event: Any, age: float = 0) -> Record:
    """A record that came so many seconds ago."""
    return Record(TopicPartition("any", 0), 0, None, None, (), event, delivered_at=time.monotonic() - age)


async def handle(pool: Pool, *records: Record, bus: MemoryBus | None = None) -> Sequence[Record]:
    return await handlers.handle(Batch(records), pool, (bus or MemoryBus()).producer(), KEY, RecentRegistrations())


async def parked(pool: Pool) -> list[str]:
    return [row[0] for row in await pool.fetch("SELECT provider_id FROM parked WHERE NOT matched")]


async def test_a_receipt_that_has_overtaken_its_submit_waits_unparked_and_then_is_matched(pool: Pool) -> None:
    bus = MemoryBus()
    early = record(receipt("a"))
    held = await handle(pool, early, record(submitted("b", message=2)), record(receipt("b")), bus=bus)
    assert held == [early]
    assert await parked(pool) == []
    assert await handle(pool, early, record(submitted("a")), bus=bus) == []
    said = published([(None, each.value) for each in bus.records(topics.STATUS.name)])
    assert [event.data.provider_id for event in said] == ["b", "a"]


async def test_a_receipt_that_has_waited_is_parked(pool: Pool) -> None:
    late, young = record(receipt("a"), age=HOLD_SECONDS + 0.1), record(receipt("b"))
    assert await handle(pool, late, young) == [young]
    assert await parked(pool) == ["a"]


async def test_a_receipt_is_counted_when_it_is_parked_not_when_it_comes_again_and_when_it_is_matched(
    pool: Pool,
) -> None:
    def counted() -> tuple[float, float]:
        return RECEIPTS_PARKED.labels("demo")._value.get(), RECEIPTS_MATCHED.labels("demo", "delivered")._value.get()

    parked_before, matched_before = counted()
    waited = record(receipt("a"), age=HOLD_SECONDS + 0.1)
    for _ in range(2):
        await handle(pool, waited)
    assert counted() == (parked_before + 1, matched_before)
    await handle(pool, record(submitted("a")))
    assert counted() == (parked_before + 1, matched_before + 1)


async def doubts(pool: Pool) -> list[tuple[int, str | None]]:
    return [tuple(row) for row in await pool.fetch("SELECT reference, provider_id FROM doubts ORDER BY reference")]


async def test_an_open_doubt_ends_with_the_registration_of_its_attempt_and_no_other(pool: Pool) -> None:
    await handle(pool, *(record(in_doubt(n, part=n, parts=2)) for n in (1, 2)), record(in_doubt(3, try_number=2)))
    await handle(pool, record(submitted("a", parts=2)), record(submitted("b", message=2)))
    assert await doubts(pool) == [(1, "a"), (2, None), (3, None)]


@pytest.mark.parametrize("order", [1, -1])
async def test_an_open_doubt_ends_with_the_registration_of_its_attempt_in_the_same_batch(
    pool: Pool, order: int
) -> None:
    events = [in_doubt(7), submitted("a", observed_at=seconds(1))][::order]
    await handle(pool, *(record(event) for event in events))
    assert await pool.fetchval("SELECT provider_id FROM doubts") == "a"


async def test_an_open_doubt_ends_with_the_acceptance_of_what_has_no_receipt(pool: Pool) -> None:
    others = [in_doubt(8, message=2), in_doubt(9, part=2, parts=2), in_doubt(10, try_number=2)]
    await handle(pool, *map(record, [in_doubt(7), *others]))
    await handle(pool, record(unasked()))
    assert await doubts(pool) == [(7, ""), (8, None), (9, None), (10, None)]
    assert await pool.fetchval("SELECT count(*) FROM provider_ids") == 0
