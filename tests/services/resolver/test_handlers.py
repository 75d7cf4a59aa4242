from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition
from prometheus_client import REGISTRY

from libs.bus.batch import Batch
from libs.bus.codec import decoder_for, encode
from libs.bus.errors import PublishFailed
from libs.bus.memory import MemoryBus
from libs.bus.record import Record
from libs.contracts.events import (
    CommandKind,
    Leg,
    MessageEvent,
    PersonKind,
    Priority,
    Recipient,
    SmsCommand,
    SmsDeferred,
    SmsDispatch,
    SmsStatus,
    event_id,
)
from libs.contracts.statuses import Status
from libs.storage.database import Pool
from services.resolver import contacts, marks
from services.resolver.contacts import Person
from services.resolver.handlers import resolve
from services.resolver.publications import Cause
from tests.services.resolver.builders import (
    GATEWAY,
    NOW,
    PHONE,
    TRACE,
    command,
    message,
    new_message_id,
    requested,
    returned,
)

LATER = NOW + timedelta(minutes=1)
_ids = count(1)
read_dispatch = decoder_for(MessageEvent[SmsDispatch])
read_deferred = decoder_for(MessageEvent[SmsDeferred])
read_status = decoder_for(MessageEvent[SmsStatus])


class World:
    """The resolver's handler over a bus in memory and a real database."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.bus = MemoryBus()

    async def resolve(self, *causes: Cause, at: datetime = NOW) -> None:
        records = [_record(cause, offset) for offset, cause in enumerate(causes)]
        await resolve(Batch(records), self.pool, self.bus.producer(), GATEWAY, lambda: at)

    async def mark(self, *commands: MessageEvent[SmsCommand]) -> None:
        records = [Record(TopicPartition("sms.commands", 0), 0, b"", encode(c), (), c) for c in commands]
        await marks.mark(Batch(records), self.pool, lambda: NOW)

    def deferred(self) -> Sequence[MessageEvent[SmsDeferred]]:
        return [read_deferred(r.value) for r in self.bus.records("sms.deferred")]

    async def person(self, phone: str | None = PHONE) -> str:
        id_ = f"h{next(_ids)}"
        await contacts.put(self.pool, Person("acme", PersonKind.CLIENT, id_), phone, "Jane Doe", NOW)
        return id_

    def dispatched(self, topic: str = "sms.dispatch.demo") -> Sequence[MessageEvent[SmsDispatch]]:
        return [read_dispatch(r.value) for r in self.bus.records(topic)]

    def ended(self) -> Sequence[MessageEvent[SmsStatus]]:
        return [read_status(r.value) for r in self.bus.records("sms.status")]


def _record(cause: Cause, offset: int) -> Record:
    return Record(TopicPartition("sms.requested", 0), offset, b"", encode(cause), (), cause)


def _content(record: ConsumerRecord) -> tuple[bytes, bytes]:
    return record.key, record.value


@pytest.fixture
def world(pool: Pool) -> World:
    return World(pool)


async def test_a_message_goes_out_with_the_number_as_of_now(world: World):
    cause = requested(message(await world.person()))
    await world.resolve(cause)
    [event] = world.dispatched()
    assert (event.subject, event.time, event.data.decided_at) == (cause.subject, NOW, NOW)
    assert (event.data.phone, event.data.person_name) == (PHONE, "Jane Doe")


async def test_a_repeat_publishes_the_stored_decision_though_the_person_has_changed(world: World):
    known, gone = await world.person(), await world.person()
    causes = requested(message(known)), requested(message(gone)), requested(message("nobody"))
    await world.resolve(*causes)
    await contacts.put(world.pool, Person("acme", PersonKind.CLIENT, known), "+254700000000", "Other", LATER)
    await contacts.delete(world.pool, Person("acme", PersonKind.CLIENT, gone), LATER)
    await contacts.put(world.pool, Person("acme", PersonKind.CLIENT, "nobody"), PHONE, None, LATER)
    await world.resolve(*causes, at=LATER + timedelta(days=7))
    for topic, number in (("sms.dispatch.demo", 2), ("sms.status", 1)):
        published = [_content(r) for r in world.bus.records(topic)]
        assert len(published) == 2 * number
        assert len(set(published)) == number


async def test_the_next_leg_is_decided_anew(world: World):
    person = await world.person()
    first = requested(message(person))
    await world.resolve(first)
    await contacts.put(world.pool, Person("acme", PersonKind.CLIENT, person), "+254700000000", "Other", LATER)
    second = returned(first.data.message, first.subject, Leg(1, 2, LATER))
    await world.resolve(second, at=LATER)
    assert [e.data.phone for e in world.dispatched()] == [PHONE, "+254700000000"]
    assert world.dispatched()[1].data.leg == Leg(1, 2, LATER)


async def test_one_message_twice_in_a_batch_is_decided_and_published_once(world: World):
    cause = requested(message(await world.person()))
    await world.resolve(cause, cause)
    assert len(world.dispatched()) == 1


async def test_messages_of_a_batch_old_and_new_keep_their_order(world: World):
    person = await world.person()
    causes = [requested(message(person, text=f"{n}")) for n in range(6)]
    await world.resolve(*causes[::2])
    await world.resolve(*causes)
    assert [e.data.message.text for e in world.dispatched()] == ["0", "2", "4", "0", "1", "2", "3", "4", "5"]


async def test_high_priority_goes_to_its_own_topic(world: World):
    await world.resolve(requested(message(await world.person(), priority=Priority.HIGH)))
    assert len(world.dispatched("sms.dispatch.demo.high")) == 1


async def test_what_cannot_be_sent_ends_with_status_and_reason(world: World):
    no_number = await world.person(phone=None)
    await world.resolve(
        requested(message("unheard-of")),
        requested(message(no_number)),
        requested(message(await world.person(), accepted_at=NOW - timedelta(days=3))),
    )
    assert [(e.data.status, e.data.reason and e.data.reason.code) for e in world.ended()] == [
        (Status.REJECTED, "unknown_person"),
        (Status.REJECTED, "no_number"),
        (Status.EXPIRED, "validity_over"),
    ]
    assert world.dispatched() == []


async def test_each_decision_is_counted_by_what_becomes_of_the_message(world: World):
    def counted() -> list[float]:
        asked = ("dispatched", "scheduled", "unknown_person", "cancelled")
        return [REGISTRY.get_sample_value("postrider_decisions_total", {"outcome": of}) or 0.0 for of in asked]

    before, person = counted(), await world.person()
    cancelled = requested(message(person))
    await world.mark(command(cancelled.subject))
    await world.resolve(
        *(requested(message(person)) for _ in range(3)),
        *(requested(message(person, scheduled_at=LATER)) for _ in range(2)),
        *(requested(message("unheard-of")) for _ in range(4)),
        cancelled,
    )
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [3, 2, 4, 1]


async def test_a_person_is_looked_up_in_their_own_tenant(world: World):
    person = await world.person()
    await world.resolve(requested(message(person, tenant="other")))
    [event] = world.ended()
    assert event.data.recipient == Recipient(PersonKind.CLIENT, person)
    assert event.data.reason is not None
    assert event.data.reason.code == "unknown_person"


async def test_a_decision_is_stored_even_if_it_could_not_be_published(world: World):
    person = await world.person()
    cause = requested(message(person), new_message_id())
    world.bus.available = False
    with pytest.raises(PublishFailed):
        await world.resolve(cause)
    await contacts.put(world.pool, Person("acme", PersonKind.CLIENT, person), None, None, LATER)
    world.bus.available = True
    await world.resolve(cause, at=LATER)
    assert [(e.data.phone, e.time) for e in world.dispatched()] == [(PHONE, NOW)]


async def test_a_message_that_names_a_time_to_come_waits_for_it_in_the_next_leg(world: World):
    person = await world.person()
    cause = requested(message(person, scheduled_at=LATER))
    await world.resolve(cause)
    [event] = world.deferred()
    assert event.id == event_id("postrider.sms.deferred.v1", cause.subject, 1, 2)
    assert (event.subject, event.time, event.traceparent) == (cause.subject, NOW, TRACE)
    assert (event.data.message, event.data.leg) == (cause.data.message, Leg(1, 2, LATER))
    assert (event.data.due_at, event.data.deferred_at, event.data.reason) == (LATER, NOW, None)
    [record] = world.bus.records("sms.deferred")
    assert record.key == f"acme/client/{person}".encode()
    assert (world.dispatched(), world.ended()) == ([], [])


async def test_sent_again_before_that_time_it_waits_in_the_cycle_that_was_begun(world: World):
    message_id = new_message_id()
    asked = message(await world.person(), scheduled_at=LATER)
    await world.resolve(returned(asked, message_id, Leg(2, 1, NOW)))
    [event] = world.deferred()
    assert (event.id, event.data.leg) == (event_id("postrider.sms.deferred.v1", message_id, 2, 2), Leg(2, 2, LATER))


async def test_that_is_a_decision_and_stays_one(world: World):
    cause = requested(message(await world.person(), scheduled_at=LATER))
    await world.resolve(cause)
    await world.resolve(cause, at=LATER + timedelta(hours=1))
    first, second = world.bus.records("sms.deferred")
    assert _content(first) == _content(second)
    assert world.dispatched() == []


async def test_when_it_is_due_it_goes_to_the_number_of_that_moment(world: World):
    person = await world.person(phone=None)
    cause = requested(message(person, scheduled_at=LATER))
    await world.resolve(cause)
    await contacts.put(world.pool, Person("acme", PersonKind.CLIENT, person), PHONE, None, NOW)
    await world.resolve(returned(cause.data.message, cause.subject, Leg(1, 2, LATER)), at=NOW)  # this clock is behind
    assert [e.data.phone for e in world.dispatched()] == [PHONE]
    assert len(world.deferred()) == 1


@pytest.mark.parametrize("scheduled_at", [NOW, NOW - timedelta(hours=1)])
async def test_a_time_that_has_come_is_not_waited_for(world: World, scheduled_at: datetime):
    await world.resolve(requested(message(await world.person(), scheduled_at=scheduled_at)))
    assert (len(world.dispatched()), world.deferred()) == (1, [])


async def test_what_comes_back_after_its_validity_ends_as_expired(world: World):
    cause = requested(message(await world.person(), scheduled_at=LATER, valid_for=timedelta(minutes=2)))
    late = LATER + timedelta(minutes=2)
    await world.resolve(returned(cause.data.message, cause.subject, Leg(1, 2, LATER)), at=late)
    assert [e.data.status for e in world.ended()] == [Status.EXPIRED]


@pytest.mark.parametrize("scheduled_at", [None, LATER])
async def test_a_cancelled_message_is_neither_sent_nor_deferred(world: World, scheduled_at: datetime | None):
    cause = requested(message(await world.person(), scheduled_at=scheduled_at))
    await world.mark(command(cause.subject), command(cause.subject))
    await world.resolve(cause)
    await world.resolve(cause)
    first, second = world.ended()
    assert first == second
    assert (first.data.status, first.data.leg, first.data.part) == (Status.CANCELLED, cause.data.leg, 0)
    assert (world.dispatched(), world.deferred()) == ([], [])


async def test_a_cancellation_after_the_decision_is_left_to_whoever_decides_next(world: World):
    cause = requested(message(await world.person()))
    await world.resolve(cause)
    await world.mark(command(cause.subject))
    await world.resolve(cause)
    assert (len(world.dispatched()), world.ended()) == (2, [])
    await world.resolve(returned(cause.data.message, cause.subject, Leg(1, 2, LATER)), at=LATER)
    assert [(e.data.status, e.data.leg.leg) for e in world.ended()] == [(Status.CANCELLED, 2)]


async def test_other_commands_and_other_cycles_cancel_nothing(world: World):
    cause = requested(message(await world.person()))
    await world.mark(
        command(cause.subject, CommandKind.RETURN), command(cause.subject, cycle=2), command(new_message_id())
    )
    await world.resolve(cause)
    assert len(world.dispatched()) == 1


async def test_marks_older_than_asked_for_are_forgotten(world: World):
    await world.mark(command(cause := new_message_id()))
    await marks.forget(world.pool, NOW)
    assert await marks.marked(world.pool, [cause]) == {(cause, 1)}
    await marks.forget(world.pool, NOW + timedelta(seconds=1))
    assert await marks.marked(world.pool, [cause]) == set()
