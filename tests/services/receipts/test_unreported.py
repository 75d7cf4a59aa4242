"""What was never reported ends as unknown: once, and only that."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from libs.bus.batch import Batch
from libs.bus.errors import PublishFailed
from libs.bus.port import KeyValue, Outgoing
from libs.bus.record import Record
from libs.contracts.events import Leg, MessageEvent, ReceiptState, SmsStatus
from libs.contracts.fold import apply, new_fold, view
from libs.contracts.statuses import Status
from libs.service_kit.metrics import UNREPORTED
from libs.storage.database import Pool
from services.receipts import handlers, unreported
from services.receipts.recent import RecentRegistrations
from services.receipts.unreported import SLOT_SECONDS, slot_of, start_of
from tests.services.receipts.examples import (
    KEY,
    NOON,
    attempt_status,
    disproved,
    in_doubt,
    many_registrations,
    nameless,
    published,
    receipt,
    seconds,
    submitted,
    trace,
    traces,
    unasked,
)

WINDOW = timedelta(hours=72)
AFTER = NOON + WINDOW + timedelta(seconds=2 * SLOT_SECONDS)


class Recorder:
    """A publisher that keeps what it is given, and fails so many times first."""

    def __init__(self) -> None:
        self.records: list[KeyValue] = []
        self.failures = 0

    async def publish(self, topic: str, records: Sequence[KeyValue]) -> None:
        assert topic == "sms.status"
        if self.failures:
            self.failures -= 1
            raise PublishFailed("not now")
        self.records += records

    async def publish_many(self, records: Sequence[Outgoing]) -> None:
        raise AssertionError

    @property
    def said(self) -> list[MessageEvent[SmsStatus]]:
        return published(self.records)


@pytest.fixture
async def swept(pool: Pool) -> Pool:
    """The gateway's sweep has begun before anything was sent."""
    await sweep(pool, Recorder(), NOON - timedelta(hours=1))
    return pool


async def handle(pool: Pool, *events: Any) -> Recorder:
    """Have the handler take a batch of these events, which have waited here long enough; what it published."""
    publisher = Recorder()
    records = [Record(TopicPartition("any", 0), 0, None, None, (), event) for event in events]
    assert not await handlers.handle(Batch(records), pool, publisher, KEY, RecentRegistrations())
    return publisher


async def sweep(pool: Pool, publisher: Recorder, now: Any = AFTER, **windows: timedelta) -> None:
    await unreported.sweep(pool, publisher, windows or {"demo": WINDOW}, now)


def ended() -> float:
    return UNREPORTED.labels("demo")._value.get()


async def test_what_has_no_final_receipt_ends_as_unknown_at_the_end_of_its_window(swept: Pool) -> None:
    await handle(swept, *(submitted(f"p{n}", n, parts=2, part=n % 2 + 1) for n in range(1, 6)))
    await handle(swept, receipt("p1"), receipt("p2", ReceiptState.UNDELIVERABLE, at=9 * SLOT_SECONDS))
    await handle(swept, receipt("p3", ReceiptState.ENROUTE), receipt("p5", ReceiptState.ACCEPTED))
    publisher, before = Recorder(), ended()
    await sweep(swept, publisher)
    assert sorted(e.data.provider_id or "" for e in publisher.said) == ["p3", "p4", "p5"]
    assert ended() == before + 3
    (event,) = [e for e in publisher.said if e.data.provider_id == "p4"]
    sent = submitted("p4", 4, parts=2, part=1)
    assert (event.subject, event.time, event.data.observed_at) == (sent.subject, NOON + WINDOW, NOON + WINDOW)
    assert (event.data.status, event.data.reason and event.data.reason.code) == (Status.UNKNOWN, "receipt.none")
    for field in ("tenant", "recipient", "leg", "part", "parts", "try_number", "gateway"):
        assert getattr(event.data, field) == getattr(sent.data, field)
    assert publisher.records[0][0] == str(publisher.said[0].subject).encode()


async def test_it_is_said_in_the_messages_trace_and_in_none_where_that_was_not_kept(swept: Pool) -> None:
    untraced = replace(submitted("b", 3), traceparent=None)
    await handle(swept, submitted("a", 1), in_doubt(7, message=2), untraced)
    publisher = Recorder()
    await sweep(swept, publisher)
    assert traces(publisher.said) == [trace(1)[3:35], trace(2)[3:35], ""]
    assert publisher.said[2].traceparent is None


async def test_it_is_said_once(swept: Pool) -> None:
    await handle(swept, submitted("a"), in_doubt(7, message=2))
    publisher = Recorder()
    for _ in range(3):
        await sweep(swept, publisher)
    assert len(publisher.said) == 2
    assert await swept.fetchval("SELECT count(*) FROM unreported") == 0
    assert await swept.fetchval("SELECT count(*) FROM reported") == 0


async def test_nothing_is_said_before_the_window_is_over(swept: Pool) -> None:
    await handle(swept, submitted("a"), in_doubt(7, message=2))
    publisher = Recorder()
    await sweep(swept, publisher, start_of(slot_of(NOON) + 1) + WINDOW - timedelta(seconds=1))
    assert publisher.said == []
    await sweep(swept, publisher, start_of(slot_of(NOON) + 1) + WINDOW)
    assert len(publisher.said) == 2


async def test_a_doubt_that_was_never_resolved_ends_too_and_a_resolved_one_does_not(swept: Pool) -> None:
    await handle(swept, in_doubt(7, message=1), in_doubt(8, message=2), in_doubt(9, message=3))
    await handle(swept, receipt("late", reference=8), submitted("answered", message=3))
    await handle(swept, receipt("answered"))
    publisher = Recorder()
    await sweep(swept, publisher)
    (event,) = publisher.said
    assert (event.subject, event.data.provider_id) == (in_doubt(7, message=1).subject, None)


async def test_what_was_accepted_without_an_id_ends_too(swept: Pool) -> None:
    await handle(swept, nameless(7))
    publisher = Recorder()
    await sweep(swept, publisher)
    assert [(e.subject, e.data.provider_id) for e in publisher.said] == [(nameless(7).subject, None)]


async def test_what_can_have_no_receipt_does_not_end_though_it_was_in_doubt(swept: Pool) -> None:
    await handle(swept, in_doubt(7, message=2), in_doubt(9, message=4))
    await handle(swept, unasked(1), unasked(2), unasked(3, provider_id=None, reference=8))
    publisher = Recorder()
    await sweep(swept, publisher)
    assert [e.subject for e in publisher.said] == [in_doubt(9, message=4).subject]


async def test_a_disproved_doubt_does_not_end_and_a_later_legs_end_is_shown(swept: Pool) -> None:
    told = [
        in_doubt(7),
        disproved(7, observed_at=seconds(60)),
        attempt_status(status=Status.FAILED, leg=Leg(1, 2, seconds(90)), observed_at=seconds(90)),
    ]
    await handle(swept, *told)
    publisher = Recorder()
    await sweep(swept, publisher)
    assert publisher.said == []
    fold = new_fold(told[0])
    for event in (*told, *publisher.said):
        apply(fold, event)
    assert view(fold).status is Status.FAILED


async def test_each_gateway_has_its_own_window(pool: Pool) -> None:
    windows = {"demo": WINDOW, "quick": timedelta(hours=1)}
    await sweep(pool, Recorder(), NOON - timedelta(hours=1), **windows)
    await handle(pool, submitted("a"), submitted("a", 2, gateway="quick"), in_doubt(7, 3), submitted("b", 4))
    await handle(pool, submitted("c", 5), submitted("c", 6, gateway="quick"))
    await handle(pool, receipt("b"), receipt("c"))
    publisher = Recorder()
    await sweep(pool, publisher, NOON + timedelta(hours=2), **windows)
    assert [(e.data.gateway, e.data.provider_id) for e in publisher.said] == [("quick", "a"), ("quick", "c")]
    assert publisher.said[0].time == NOON + timedelta(hours=1)
    await sweep(pool, publisher, AFTER, quick=windows["quick"])  # demo is no longer configured
    assert [(e.data.gateway, e.data.provider_id) for e in publisher.said] == [
        ("quick", "a"),
        ("quick", "c"),
        ("demo", "a"),
        ("demo", None),
    ]


async def test_what_was_sent_before_the_first_sweep_is_left_as_it_is(pool: Pool) -> None:
    await handle(pool, submitted("a"))
    publisher = Recorder()
    await sweep(pool, publisher, NOON + timedelta(hours=1))
    await sweep(pool, publisher)
    assert publisher.said == []


async def test_what_could_not_be_published_is_published_the_next_time_as_the_same_event(swept: Pool) -> None:
    await handle(swept, *(submitted(f"p{n}", n) for n in range(5)))
    publisher = Recorder()
    publisher.failures = 1
    with pytest.raises(PublishFailed):
        await sweep(swept, publisher)
    stored = await swept.fetchval("SELECT count(*) FROM unreported")
    assert stored == 5
    await sweep(swept, publisher, AFTER + timedelta(days=1))
    assert len({e.id for e in publisher.said}) == 5
    assert {e.time for e in publisher.said} == {NOON + WINDOW}


async def test_a_receipt_after_the_window_still_becomes_its_status_and_leaves_nothing_behind(swept: Pool) -> None:
    await handle(swept, submitted("a"))
    await sweep(swept, Recorder())
    came = await handle(swept, receipt("a", at=WINDOW.total_seconds() + 900))
    assert [e.data.status for e in came.said] == [Status.DELIVERED]
    later = Recorder()
    await sweep(swept, later, AFTER + timedelta(hours=1))
    assert later.said == []
    assert await swept.fetchval("SELECT count(*) FROM reported") == 0


@pytest.mark.parametrize(("answered", "unanswered"), [(1, 2), (2, 1)])
async def test_of_an_id_given_twice_each_attempt_waits_for_its_own_receipt(
    swept: Pool, answered: int, unanswered: int
) -> None:
    numbers = {1: "+254711000091", 2: "+254711000092"}
    sent = {n: submitted("a", n, destination=number, observed_at=seconds(n)) for n, number in numbers.items()}
    await handle(swept, *sent.values())
    await handle(swept, receipt("a", at=30, destination=numbers[answered]))
    publisher = Recorder()
    await sweep(swept, publisher)
    assert [e.subject for e in publisher.said] == [sent[unanswered].subject]


async def test_what_fails_for_one_gateway_keeps_no_other_waiting(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = {"broken": WINDOW, "demo": WINDOW}
    await sweep(pool, Recorder(), NOON - timedelta(hours=1), **windows)
    await handle(pool, submitted("a"))
    decide = unreported._pass_slot

    async def fails_for_one(pool: Pool, gateway: str, *rest: Any) -> bool:
        if gateway == "broken":
            raise TimeoutError
        return await decide(pool, gateway, *rest)

    monkeypatch.setattr(unreported, "_pass_slot", fails_for_one)
    publisher = Recorder()
    await sweep(pool, publisher, **windows)
    assert [e.data.gateway for e in publisher.said] == ["demo"]


async def test_what_another_replica_is_at_is_left_to_it(swept: Pool) -> None:
    await handle(swept, submitted("a"))
    publisher = Recorder()
    async with swept.acquire() as other, other.transaction():
        await other.execute("SELECT FROM sweeps FOR UPDATE")
        async with asyncio.timeout(10):
            await sweep(swept, publisher)
    assert publisher.said == []
    await sweep(swept, publisher)
    assert len(publisher.said) == 1


async def test_the_sweep_reads_only_its_slots(swept: Pool) -> None:
    """By the plan: the index of times, not the whole table."""
    await many_registrations(swept)
    plan = await _plan(swept, unreported.start_of(1), 1)
    assert "provider_ids_registered" in plan
    assert "provider_ids_pkey" not in plan


async def test_a_burst_that_is_newer_than_the_statistics_is_not_compared_pair_by_pair(swept: Pool) -> None:
    await many_registrations(swept)
    first = NOON + timedelta(days=3)
    await swept.execute("INSERT INTO reported VALUES ('demo', $1, 'as many as there are')", slot_of(first))
    await swept.execute("ANALYZE")
    plan = await _plan(swept, first, slot_of(first))
    assert "Hash" in plan
    assert "Nested Loop" not in plan


async def _plan(pool: Pool, first: datetime, slot: int) -> str:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(unreported._PLAN)
        values = ("'demo'", str(slot), f"'{first}'", f"'{first + timedelta(minutes=5)}'", "'72 hours'")
        query = unreported._END_SUBMITTED
        for number, value in enumerate(values, 1):
            query = query.replace(f"${number}", value)
        return "\n".join(row[0] for row in await connection.fetch("EXPLAIN " + query))
