"""A dispatcher's instances with real Kafka, Postgres and a carrier: what is sent, told and done with."""

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from libs.bus.codec import encode
from libs.bus.dead_letters import LIMIT
from libs.contracts import topics
from libs.contracts.events import Encoding, MessageEvent, Priority, Reason, SmsDispatch
from libs.contracts.statuses import Status
from libs.contracts.without_receipt import NOT_ASKED
from libs.service_kit.metrics import BOUND, STANDBY
from services.dispatcher import instance, sender
from services.dispatcher.lease import Lease
from services.dispatcher.ledger import ClaimVerdict, Ledger
from tests.services.dispatcher.world import MakeWorld, World, all_told


async def until_waiting(world: World, statements: int) -> None:
    """Return when at least so many statements wait for a lock: a beat may wait behind a claim."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(40):
        while await world.pool.fetchval(waiting) < statements:
            await asyncio.sleep(0.05)


async def test_messages_of_one_and_three_parts_are_submitted_once_and_their_receipts_reach_kafka(world: MakeWorld):
    async with world() as w:
        events = [w.event(f"hello {n}") for n in range(200)] + [w.event("é" * 400 + str(n)) for n in range(5)]
        parts = sum(e.data.segments for e in events)
        assert parts > 210
        w.start()
        await w.send(*events)
        await w.until(lambda: len(w.receipts) >= parts and sum(len(v) for v in w.statuses.values()) >= parts)
        for event in events:
            told = w.statuses[event.subject]
            assert sorted((s.part, s.status) for s in told) == [
                (p, Status.SUBMITTED) for p in range(1, event.data.segments + 1)
            ]
        assert len(await w.carrier.accepted()) == parts
        ids = {s.provider_id for told in w.statuses.values() for s in told}
        assert ids == {r.provider_id for r in w.receipts}


async def test_a_text_is_sent_in_the_alphabet_and_the_segments_that_were_decided(world: MakeWorld):
    async with world(default_alphabet="latin1") as w:
        fits, other = w.event("café {1}"), w.event("é" * 70 + "€")
        other = replace(other, data=replace(other.data, encoding=Encoding.UCS2, segments=2))
        w.start()
        await w.send(fits, other)
        await w.until(all_told(w, [fits, other], Status.SUBMITTED))
        sent = sorted((e["data_coding"], e["short_message"]) for e in await w.carrier.accepted())
        assert sent[0] == (0, "café {1}".encode("latin1").hex())
        assert [(coding, text[:6], text[14:]) for coding, text in sent[1:]] == [
            (8, "060804", ("é" * 66).encode("utf-16-be").hex()),
            (8, "060804", "éééé€".encode("utf-16-be").hex()),
        ]


@pytest.mark.parametrize(
    ("bind_type", "receipts", "reported"),
    [("transceiver", "first", [1]), ("transceiver", "last", [3]), ("transmitter", "none", [])],
)
async def test_a_part_of_which_no_receipt_is_asked_for_says_so_whenever_it_is_told(
    world: MakeWorld, bind_type: str, receipts: str, reported: list[int]
):
    async with world(bind_type=bind_type, receipts=receipts) as w:
        event = w.event("x" * 400)
        w.start()
        await w.send(event)
        await w.until(lambda: len(w.words(event.subject)) == 3)
        await w.send(event)
        await w.until(lambda: len(w.words(event.subject)) == 6 and len(w.receipts) >= len(reported))
        told = w.statuses[event.subject]
        assert {s.status for s in told} == {Status.SUBMITTED}
        assert sorted(s.part for s in told if s.reason is None) == sorted(reported * 2)
        assert all(s.reason == NOT_ASKED for s in told if s.part not in reported)
        named = {s.provider_id for s in told if s.part in reported}
        assert {r.provider_id for r in w.receipts} == named


async def test_what_is_read_again_is_told_again_and_not_sent_again(world: MakeWorld):
    async with world() as w:
        events = [w.event(f"once {n}") for n in range(20)] + [w.event("x" * 400)]
        w.start()
        await w.send(*events)
        await w.until(all_told(w, events, Status.SUBMITTED))
        before = {m: sorted(map(repr, told)) for m, told in w.statuses.items()}
        w.statuses.clear()
        await w.send(*events)
        await w.until(all_told(w, events, Status.SUBMITTED))
        await w.until(lambda: sum(len(v) for v in w.statuses.values()) >= 23)
        assert {m: sorted(map(repr, told)) for m, told in w.statuses.items()} == before
        assert len(await w.carrier.accepted()) == 23


async def test_a_marked_message_goes_back_unattempted_and_one_decided_after_the_mark_is_sent(world: MakeWorld):
    async with world() as w:
        before, after = w.event(), w.event()
        await w.pool.execute("INSERT INTO marks VALUES ($1, 1, 'return', $2)", before.subject, datetime.now(UTC))
        await w.pool.execute(
            "INSERT INTO marks VALUES ($1, 1, 'return', $2)",
            after.subject,
            after.data.decided_at - timedelta(seconds=1),
        )
        w.start()
        await w.send(before, after)
        await w.until(lambda: before.subject in w.returned)
        await w.until(all_told(w, [after], Status.SUBMITTED))
        assert w.returned[before.subject].leg.leg == 2 and w.returned[before.subject].reason.code == "contact_changed"
        assert w.returned[before.subject].refused_part == 0 and after.subject not in w.returned
        assert len(await w.carrier.accepted()) == 1


async def test_high_priority_overtakes_a_backlog_also_one_of_as_many_as_are_taken_in_hand(world: MakeWorld):
    async with world(segments_per_second=50) as w:
        backlog = [w.event(f"{n}") for n in range(w.settings().dispatcher_most_legs + 300)]
        await w.send(*backlog)
        w.start()
        await w.until(lambda: len(w.statuses) >= 20)
        urgent = w.event("urgent", priority=Priority.HIGH)
        await w.send(urgent)
        await w.until(all_told(w, [urgent], Status.SUBMITTED))
        assert sum("submitted" in w.words(e.subject) for e in backlog) < 250


async def test_a_rate_is_not_exceeded_by_what_its_interval_has_beyond_whole_microseconds(world: MakeWorld):
    async with world(segments_per_second=900) as w:  # 1,111.1 µs apart
        events = [w.event(f"{n}") for n in range(50)]
        await w.send(*events)
        w.start()
        await w.until(all_told(w, events, Status.SUBMITTED))
        moments: list[datetime] = [r[0] for r in await w.pool.fetch("SELECT allowed_at FROM attempts ORDER BY 1")]
        apart = min(after - before for before, after in pairwise(moments))
        assert apart * 900 >= timedelta(seconds=1)


async def test_what_has_a_rate_leaves_also_where_claims_take_longer_than_a_part_may_be_late(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
):
    claim = Ledger.claim

    async def slow_claim(*of: Any) -> list[ClaimVerdict]:
        verdicts = await claim(*of)
        await asyncio.sleep(sender.LATE_SECONDS * 2)
        return verdicts

    monkeypatch.setattr(Ledger, "claim", slow_claim)
    async with world(segments_per_second=50) as w:
        events = [w.event(f"{n}") for n in range(60)]
        w.start()
        await w.send(*events)
        await w.until(all_told(w, events, Status.SUBMITTED))
        assert len(await w.carrier.accepted()) == 60


async def test_a_record_that_no_attempt_could_be_made_of_goes_to_the_dead_letters(world: MakeWorld):
    async with world() as w:
        topic = topics.dispatch(w.gateway.id)
        w.start()
        poison, good = w.event("other gateway"), w.event("good")
        object.__setattr__(poison.data, "segments", 9)
        await w.send(poison)
        await w.producer.publish(topic.name, [(b"k", b"\x00not json")])
        await w.send(good)
        await w.until(all_told(w, [good], Status.SUBMITTED))
        consumer = AIOKafkaConsumer(topic.dead_letter, bootstrap_servers=w.kafka, auto_offset_reset="earliest")
        await consumer.start()
        try:
            async with asyncio.timeout(20):
                dead = [await consumer.getone(), await consumer.getone()]
        finally:
            await consumer.stop()
        assert {d.value for d in dead} == {encode(poison), b"\x00not json"}
        await w.until(all_told(w, [poison], Status.REJECTED))
        assert w.statuses[poison.subject][0].reason == Reason("poison", "its record could not be handled: invalid")


async def test_a_run_of_dead_letters_stops_it_until_it_is_started_again(world: MakeWorld):
    async with world() as w:
        made, stopped = list[instance.Instance](), asyncio.Event()

        def make() -> instance.Instance:
            made.append(w.make())
            return made[-1]

        living = asyncio.create_task(instance.live(make, stopped))
        poison = [w.event(f"{n}") for n in range(LIMIT + 5)]
        for each in poison:
            object.__setattr__(each.data, "segments", 9)
        await w.send(*poison)
        await w.until(lambda: living.done() or "too many dead letters" in (made[0].missing or ""))
        await w.until(lambda: len(w.statuses) >= LIMIT)
        assert not living.done() and len(made) == 1
        stopped.set()
        await living
        assert len(made) == 1 and await w.pool.fetchval("SELECT count(*) FROM attempts") == LIMIT


async def test_a_message_from_a_person_reaches_kafka_as_it_came(world: MakeWorld):
    async with world() as w:
        instance = w.start()
        await w.until(lambda: instance.missing is None and not instance.standing_by)
        await w.carrier.act(
            "mobile-originated", system_id=w.gateway.system_id, source="254711000001", destination="20414", text="STOP"
        )
        await w.until(lambda: len(w.inbound) == 1)
        assert bytes.fromhex(w.inbound[0].content_hex) == b"STOP"
        assert (w.inbound[0].source, w.inbound[0].destination) == ("254711000001", "20414")


async def test_a_message_from_a_person_that_is_on_its_way_at_the_stop_is_answered(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
):
    entered, publish = asyncio.Event(), instance.publish_reports

    async def slowly(*what: Any) -> None:
        entered.set()
        await asyncio.sleep(0.1)  # longer than the carrier takes to answer the unbind
        await publish(*what)

    async def acknowledged() -> int:
        async with w.carrier.session.get(f"{w.carrier.url}/stats") as answer:
            return (await answer.json())["deliveries_acknowledged"]

    monkeypatch.setattr(instance, "publish_reports", slowly)
    async with world() as w:
        sending = w.start()
        await w.until(lambda: sending.missing is None and not sending.standing_by)
        before = await acknowledged()
        await w.carrier.act(
            "mobile-originated", system_id=w.gateway.system_id, source="254711000001", destination="20414", text="STOP"
        )
        await entered.wait()
        assert BOUND.labels(w.gateway.id)._value.get() == 1
        await w.stop()
        assert BOUND.labels(w.gateway.id)._value.get() == 0
        assert await acknowledged() == before + 1


async def test_replicas_share_the_work_and_one_that_leaves_hands_its_share_over(world: MakeWorld):
    async with world() as w:
        w.start()
        w.start()
        first = list[MessageEvent[SmsDispatch]]()
        async with asyncio.timeout(40):
            while await w.pool.fetchval("SELECT count(DISTINCT owner) FROM attempts") < 2:
                some = [w.event(f"a{n}", person=f"{n}") for n in range(20)]
                await w.send(*some)
                await w.until(all_told(w, some, Status.SUBMITTED))
                first += some
        leaver, task = w.running.pop(0)
        leaver.stop()
        second = [w.event(f"b{n}", person=f"{n}") for n in range(100)]
        await w.send(*second)
        await task
        await w.until(all_told(w, second, Status.SUBMITTED))
        assert len(await w.carrier.accepted()) == len(first) + len(second)


async def test_an_answer_that_comes_while_postgres_does_not_store_is_no_doubt_even_when_the_lease_ends(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(instance, "LAST_ANSWERS_SECONDS", 0.1)
    async with world(response_timeout_seconds=30) as w:
        await w.carrier.behave(responses={"delay_ms": 1500})
        w.start()
        event = w.event()
        await w.send(event)
        async with asyncio.timeout(20):
            while not await w.carrier.accepted():
                await asyncio.sleep(0.05)
        async with w.pool.acquire() as claims, claims.transaction():
            async with w.pool.acquire() as answers, answers.transaction():
                await answers.execute("LOCK TABLE attempts IN EXCLUSIVE MODE")
                await until_waiting(w, 1)  # with the answer
                await w.pool.execute("UPDATE instances SET dead = true")
                await claims.execute("SELECT FROM rates FOR UPDATE")
                w.start()
                await until_waiting(w, 2)  # and the other, which has the partitions now, with its claim
            async with asyncio.timeout(20):
                while await w.pool.fetchval("SELECT outcome FROM attempts") is None:
                    await asyncio.sleep(0.05)
        await w.until(all_told(w, [event], Status.SUBMITTED))
        await w.running.pop(0)[1]
        assert await w.pool.fetchval("SELECT outcome FROM attempts") == b"A"
        assert set(w.words(event.subject)) == {"submitted"}
        assert len(await w.carrier.accepted()) == 1


async def test_a_lease_ends_and_the_bind_with_it_also_while_its_renewal_is_never_answered(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
):
    answered = asyncio.Event()

    async def unanswered(_: Lease) -> None:
        while not answered.is_set():
            with contextlib.suppress(asyncio.CancelledError):  # calling it off takes as long
                await answered.wait()

    async with world() as w:
        holder = w.start()
        event = w.event()
        await w.send(event)
        await w.until(all_told(w, [event], Status.SUBMITTED))
        monkeypatch.setattr(Lease, "beat", unanswered)
        try:
            async with asyncio.timeout(40):
                await asyncio.shield(w.running[0][1])
            assert holder.missing
        finally:
            answered.set()


@pytest.mark.parametrize(("bind_type", "binds_allowed"), [("transceiver", 1), ("transmitter_and_receiver", 2)])
async def test_with_binds_for_one_replica_a_second_stands_by_and_takes_over(
    world: MakeWorld, bind_type: str, binds_allowed: int
):
    async with world(bind_type=bind_type, binds_allowed=binds_allowed) as w:
        first = w.start()
        await w.until(lambda: not first.standing_by)
        second = w.start()
        one = w.event("one")
        await w.send(one)
        await w.until(all_told(w, [one], Status.SUBMITTED))
        assert second.standing_by and second.missing is None
        assert STANDBY.labels(w.gateway.id)._value.get() == 1
        w.running[0][0].stop()
        await w.running.pop(0)[1]
        ended = "SELECT dead FROM instances WHERE instance = $1"
        assert await w.pool.fetchval(ended, first._lease.instance), "nobody waits until its beat has stood still"
        two = w.event("two")
        await w.send(two)
        await w.until(all_told(w, [two], Status.SUBMITTED))
        assert STANDBY.labels(w.gateway.id)._value.get() == 0
