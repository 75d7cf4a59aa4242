"""What is answered of one message, and of the messages of one call."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from libs.contracts.events import PersonKind, Priority
from libs.contracts.http.requests import SmsQuery
from libs.contracts.statuses import Status
from libs.storage.database import Pool
from services.projection import queries
from services.projection.queries import batch, find, page
from tests.services.projection.asking import at, numbers
from tests.services.projection.conftest import fold_in
from tests.services.projection.stories import NAME, SENDER, START, TENANT, TEXT, Story, message_id


async def test_one_message_has_its_whole_history_oldest_first(pool: Pool) -> None:
    story = Story(5)
    told = [
        story.requested(),
        story.dispatched(),
        story.status(Status.REFUSED, reason="throttled"),
        story.returned(1, 1),
    ]
    first_phone, story.phone = story.phone, "+4915187654321"
    told += [story.dispatched(), story.status(Status.SUBMITTED), story.status(Status.DELIVERED)]
    await fold_in(pool, told[::-1], batch=2)
    found = await find(pool, TENANT, story.id)
    assert found is not None
    assert [(t.status, t.topic, t.leg, t.part, t.try_number) for t in found.history] == [
        ("accepted", "sms.requested", 1, 0, 0),
        ("queued", "sms.dispatch.demo", 1, 0, 0),
        ("refused", "sms.status", 1, 1, 1),
        ("accepted", "sms.returned", 2, 0, 0),
        ("queued", "sms.dispatch.demo", 2, 0, 0),
        ("submitted", "sms.status", 2, 1, 1),
        ("delivered", "sms.status", 2, 1, 1),
    ]
    assert [t.at for t in found.history] == [at(n) for n in range(7)]
    reasons = [t.reason.code for t in found.history if t.reason is not None]
    assert reasons == ["throttled", "number-changed"]
    assert (found.history[5].gateway, found.history[5].provider_id) == ("demo", "5-2-1-1")
    assert found.history[6].carrier_time == "2611200801"
    # Each leg shows the number that was looked up for it, and the sender it went out under.
    assert [t.phone for t in found.history] == [None, first_phone, None, None, story.phone, None, None]
    assert [t.sender_id for t in found.history] == [None, SENDER, None, None, SENDER, None, None]


async def test_what_was_at_one_moment_is_told_in_the_order_of_a_messages_way(pool: Pool) -> None:
    story = Story(5)
    told = [story.requested()]
    for say in (
        lambda: story.dispatched(segments=2),
        lambda: story.status(Status.REFUSED, 1, 2),
        lambda: story.status(Status.REFUSED, 1, 2, try_number=2),
        lambda: story.status(Status.REFUSED, 2, 2),
    ):
        story.now = START - timedelta(seconds=1)
        told.append(say())
    await fold_in(pool, told[::-1])
    found = await find(pool, TENANT, story.id)
    assert found is not None
    assert {t.at for t in found.history} == {START}
    assert [(t.status, t.part, t.try_number) for t in found.history] == [
        ("accepted", 0, 0),
        ("queued", 0, 0),
        ("refused", 1, 1),
        ("refused", 1, 2),
        ("refused", 2, 1),
    ]


async def test_a_part_that_was_refused_and_is_to_be_tried_again_waits_as_its_message_does(pool: Pool) -> None:
    story = Story(5)
    statuses = [story.status(Status.REFUSED, 1, 2), story.status(Status.SUBMITTED, 2, 2)]
    await fold_in(pool, [story.requested(), story.dispatched(segments=2), *statuses])
    found = await find(pool, TENANT, story.id)
    assert found is not None
    assert (found.status, [part.status for part in found.parts]) == (Status.QUEUED, [Status.QUEUED, Status.SUBMITTED])
    await fold_in(pool, [(alone := Story(6)).requested(), alone.dispatched(), alone.status(Status.REFUSED)])
    assert await numbers(pool, status="queued") == [6, 5]


async def test_a_message_and_its_history_are_of_one_moment(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    *begun, end = (story := Story(5)).delivered()
    await fold_in(pool, begun)
    read = queries._personal

    async def meanwhile(*asked: Any) -> Any:
        await fold_in(pool, [end])
        return await read(*asked)

    monkeypatch.setattr(queries, "_personal", meanwhile)
    found = await find(pool, TENANT, story.id)
    assert found is not None
    assert (found.status, found.history[-1].status) == (Status.SUBMITTED, Status.SUBMITTED)


async def test_a_message_that_waits_says_until_when_and_its_history_why(pool: Pool) -> None:
    story = Story(8)
    await fold_in(pool, [story.requested(), story.dispatched(), story.deferred(refused_part=1, refused_try=1)])
    waiting = await find(pool, TENANT, story.id)
    assert waiting is not None
    assert (waiting.status, waiting.scheduled_at, waiting.cancel_asked_at) == (Status.SCHEDULED, story.leg.leg_at, None)
    assert waiting.reason is not None
    assert waiting.history[2].reason == waiting.reason
    asked = story.command()
    await fold_in(pool, [asked, story.due(), story.dispatched()])
    gone_on = await find(pool, TENANT, story.id)
    assert gone_on is not None
    assert (gone_on.status, gone_on.scheduled_at, gone_on.cancel_asked_at) == (Status.QUEUED, None, asked.event.time)
    assert [t.status for t in gone_on.history] == [
        Status.ACCEPTED,
        Status.QUEUED,
        Status.SCHEDULED,
        Status.ACCEPTED,
        Status.QUEUED,
    ]
    assert [t.topic for t in gone_on.history][2:4] == ["sms.deferred", "sms.returned"]


@pytest.mark.parametrize(
    ("kind", "client_id", "staff_id"),
    [(PersonKind.CLIENT, "17", None), (PersonKind.STAFF, None, "17"), (PersonKind.NUMBER, None, None)],
)
async def test_one_message_is_answered_field_by_field(
    pool: Pool, kind: PersonKind, client_id: str | None, staff_id: str | None
) -> None:
    story = Story(5, person="17", kind=kind, priority=Priority.HIGH)
    story.message = replace(story.message, sender_id="CLINIC")
    await fold_in(pool, story.delivered())
    found = await find(pool, TENANT, story.id)
    assert found is not None
    assert found.model_dump(mode="json", by_alias=True, exclude={"history"}) == {
        "id": str(story.id),
        "number": 5,
        "clientId": client_id,
        "staffId": staff_id,
        "message": TEXT,
        "phone": story.phone,
        "personName": NAME,
        "status": "delivered",
        "statusAt": "2026-11-20T08:00:03Z",
        "reason": None,
        "priority": "high",
        "senderId": "CLINIC",
        "tags": ["reminder"],
        "customData": {"loan": [1, "a"]},
        "gateway": "demo",
        "encoding": "gsm7",
        "segments": 1,
        "acceptedAt": "2026-11-20T08:00:00Z",
        "validUntil": "2026-11-22T08:00:00Z",
        "submittedAt": "2026-11-20T08:00:02Z",
        "deliveredAt": "2026-11-20T08:00:03Z",
        "cycle": 1,
        "leg": 1,
        "possibleDouble": False,
        "requestedBy": "core",
        "parts": [{"part": 1, "status": "delivered", "providerId": "5-1-1-1", "tryNumber": 1}],
        "scheduledAt": None,
        "cancelAskedAt": None,
        "batchId": None,
        "validitySeconds": 2 * 24 * 3600,
    }


async def test_one_that_is_sent_again_shows_how_long_that_may_take_and_how_long_it_might_at_first(pool: Pool) -> None:
    story = Story(9)
    due = story.message.accepted_at + timedelta(days=30)
    story.message = replace(story.message, scheduled_at=due, valid_until=due + timedelta(minutes=10))
    first = [story.requested(), story.dispatched(), story.status(Status.CANCELLED, part=0)]
    again = story.resent(timedelta(minutes=10))
    await fold_in(pool, [again, *first])
    found = await find(pool, TENANT, story.id)
    assert found is not None
    assert (found.valid_until, found.cycle) == (again.event.time + timedelta(minutes=10), 2)
    assert (found.validity_seconds, found.requested_by) == (600, "core")
    assert found.phone == story.phone, "the last one, until it is looked up anew"
    assert (await page(pool, TENANT, SmsQuery())).items[0].valid_until == found.valid_until


async def test_a_batch_is_counted_by_status_and_its_messages_are_found(pool: Pool) -> None:
    mine, other = (message_id(START, tail) for tail in (11, 2))  # ids within a millisecond have no order
    told = [step for number in (10, 11) for step in Story(number, batch=mine).delivered()]
    told += [Story(12, batch=mine).requested(), Story(13, batch=other).requested(), Story(14).requested()]
    await fold_in(pool, told)
    found = await batch(pool, TENANT, mine)
    assert found is not None
    assert (found.id, found.total, found.location) == (mine, 3, f"/batches/{mine}")
    assert found.by_status == {Status.ACCEPTED: 1, Status.DELIVERED: 2}
    await fold_in(pool, Story(12, batch=mine).delivered())
    again = await batch(pool, TENANT, mine)
    assert again is not None
    assert again.by_status == {Status.DELIVERED: 3}
    assert await batch(pool, "clinic", mine) is None
    assert await batch(pool, TENANT, message_id(at(1), 1)) is None
    assert await numbers(pool, batch_id=mine) == [12, 11, 10]
    assert await numbers(pool, batch_id=mine, limit=2, number=Story(1).phone) == [12, 11]
    one = await find(pool, TENANT, Story(12).id)
    assert one is not None
    assert one.batch_id == mine


async def test_a_batch_is_as_large_as_its_call_from_its_first_message_on(pool: Pool) -> None:
    mine = message_id(START, 1)
    for number, known in ((11, {Status.ACCEPTED: 1}), (10, {Status.ACCEPTED: 2})):
        await fold_in(pool, [Story(number, batch=mine, batch_size=3).requested()])
        found = await batch(pool, TENANT, mine)
        assert found is not None
        assert (found.total, found.by_status) == (3, known)


@pytest.mark.parametrize("batch_id", [UUID(int=0), UUID(int=(1 << 128) - 1)])
async def test_any_id_may_be_asked_for_as_a_batch(pool: Pool, batch_id: UUID) -> None:
    assert await batch(pool, TENANT, batch_id) is None


async def test_a_batch_known_by_a_status_first_gets_its_message_with_the_request(pool: Pool) -> None:
    mine = message_id(START, 1)
    requested, *rest = Story(10, batch=mine).delivered()
    await fold_in(pool, rest[1:])
    assert await batch(pool, TENANT, mine) is None
    await fold_in(pool, [requested])
    found = await batch(pool, TENANT, mine)
    assert found is not None
    assert found.by_status == {Status.DELIVERED: 1}


async def test_the_number_shown_is_that_of_the_leg_shown(pool: Pool) -> None:
    story = Story(5)
    told = [story.requested(), story.dispatched(), story.status(Status.IN_DOUBT), story.returned()]
    await fold_in(pool, told)
    waiting = await find(pool, TENANT, story.id)
    assert waiting is not None and (waiting.leg, waiting.phone) == (2, "+4915112345678")
    story.phone = "+4915187654321"
    await fold_in(pool, [story.dispatched(), story.status(Status.SUBMITTED)])
    second = await find(pool, TENANT, story.id)
    assert second is not None and (second.leg, second.phone) == (2, "+4915187654321")
    assert (waiting.possible_double, second.possible_double) == (False, True)
    story.leg = story.first_leg
    await fold_in(pool, [story.status(Status.DELIVERED)])
    delivered = await find(pool, TENANT, story.id)
    assert delivered is not None and (delivered.leg, delivered.phone) == (1, "+4915112345678")


async def test_a_message_known_by_its_status_only_can_be_read(pool: Pool) -> None:
    story = Story(5)
    await fold_in(pool, [story.status(Status.SUBMITTED, part=2, parts=3)])
    found = await find(pool, TENANT, story.id)
    assert found is not None
    assert (found.status, found.message, found.phone, found.number, found.accepted_at) == (
        Status.QUEUED,
        None,
        None,
        None,
        START,
    )
