"""Cancel, resend and say what became of it over HTTP, with stand-ins for Kafka, Postgres and the projection."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from libs.bus.codec import decoder
from libs.bus.errors import PublishFailed
from libs.contracts.events import CommandKind, Leg, Priority, SmsCommand, SmsRequested, event_id
from libs.contracts.http.answers import Part, SmsWithHistory, Transition
from libs.contracts.message_ids import new_message_id, time_of
from libs.contracts.statuses import NEGATIVE_FINALS, Status
from libs.contracts.topics import COMMANDS, STATUS
from services.api_gateway.shown import read_shown
from tests.services.api_gateway.fakes import OTHER_TENANT_KEY, OUTCOME_KEY, SEND_KEY, Answer, Gateway

ID = new_message_id()
ACCEPTED_AT = time_of(ID)


def transition(status: Status, cycle: int) -> Transition:
    return Transition(
        status=status, at=ACCEPTED_AT, topic="sms.status", cycle=cycle, leg=1, part=0, try_number=0, gateway="demo"
    )


def shown(status: Status, cycles: int = 1, **changed: Any) -> SmsWithHistory:
    """A message as the outbox shows it."""
    history = [transition(s, cycle) for cycle in range(1, cycles + 1) for s in (Status.ACCEPTED, status)]
    sms: dict[str, Any] = {
        "id": ID, "number": 7, "client_id": "17", "staff_id": None, "message": "Hello", "phone": "+254700000001",
        "person_name": None, "status": status, "status_at": ACCEPTED_AT, "reason": None, "priority": Priority.HIGH,
        "sender_id": "CLINIC", "tags": ("a",), "custom_data": {"order": 1}, "gateway": "demo", "encoding": None, "segments": 1,
        "accepted_at": ACCEPTED_AT, "valid_until": ACCEPTED_AT + timedelta(minutes=10), "submitted_at": None,
        "delivered_at": None, "cycle": cycles, "leg": 1, "possible_double": False, "requested_by": "first",
        "parts": (Part(part=1, status=status, provider_id=None, try_number=1),), "history": tuple(history),
        "validity_seconds": 600,
    }  # fmt: skip
    return SmsWithHistory(**{**sms, **changed})


def show(gateway: Gateway, message: SmsWithHistory) -> None:
    gateway.projection.body = message.model_dump_json(by_alias=True).encode()


async def cancel(gateway: Gateway, **more: Any) -> Answer:
    return await gateway.ask("DELETE", f"/sms/{ID}", **more)


async def resend(gateway: Gateway, **more: Any) -> Answer:
    return await gateway.ask("POST", f"/sms/{ID}/resend", **more)


async def say(gateway: Gateway, status: str = "failed", **more: Any) -> Answer:
    return await gateway.ask("POST", f"/sms/{ID}/outcome", json={"status": status}, **more)


def test_what_is_needed_of_a_message_is_read_as_the_outbox_says_it() -> None:
    batch = UUID("019b30cb-7a50-7000-8000-000000000001")
    said = shown(Status.FAILED, cycles=2)
    read = read_shown(said.model_dump_json(by_alias=True).encode())
    for name in read.__struct_fields__:
        if name not in ("history", "batch_id"):
            assert getattr(read, name) == getattr(said, name), name
    assert [(s.status, s.cycle) for s in read.history] == [(t.status, t.cycle) for t in said.history]
    newer = said.model_dump_json(by_alias=True)[:-1] + f', "batchId": "{batch}", "unheardOf": 1}}'
    assert read_shown(newer.encode()).batch_id == batch


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.QUEUED, Status.DELIVERED, Status.FAILED])
async def test_a_cancellation_becomes_a_command_about_the_newest_cycle(gateway: Gateway, status: Status) -> None:
    show(gateway, shown(status, cycles=2))
    before = datetime.now(UTC)
    answer = await cancel(gateway)
    assert (answer.status, answer.body) == (
        202,
        {"id": str(ID), "status": "cancelling", "location": f"/sms/{ID}"},
    )
    assert answer.headers["Location"] == f"/sms/{ID}"
    assert [(a.method, a.path, a.tenant) for a in gateway.projection.asked] == [("GET", f"/internal/sms/{ID}", "demo")]
    (record,) = gateway.publisher.records
    assert (record.topic, record.key) == ("sms.commands", b"demo/client/17")
    event = decoder(COMMANDS)(record.value or b"")
    assert event.id == event_id(SmsCommand.TYPE, ID, 2, CommandKind.CANCEL)
    assert event.subject == ID
    assert (event.data.kind, event.data.cycle, event.data.tenant) == (CommandKind.CANCEL, 2, "demo")
    assert before <= event.data.asked_at == event.time <= datetime.now(UTC)


async def test_cancelled_again_it_is_the_very_same_command(gateway: Gateway) -> None:
    show(gateway, shown(Status.QUEUED))
    answers = await asyncio.gather(*(cancel(gateway) for _ in range(3)))
    assert {a.status for a in answers} == {202}
    assert len({r.value for r in gateway.publisher.records}) == 1


def cancelled(gateway: Gateway) -> list[int]:
    """The cycles that the commands published so far are about."""
    read = decoder(COMMANDS)
    return [read(r.value or b"").data.cycle for r in gateway.publisher.records if r.topic == COMMANDS.name]


async def test_whatever_an_earlier_cycle_delivered_the_newest_is_cancelled(gateway: Gateway) -> None:
    show(gateway, shown(Status.DELIVERED, cycles=2, cycle=1))
    assert (await cancel(gateway)).status == 202
    assert cancelled(gateway) == [2]


async def test_cancelled_right_after_it_was_sent_again_the_new_cycle_is_too(gateway: Gateway) -> None:
    show(gateway, shown(Status.FAILED))
    assert (await resend(gateway)).status == 202
    assert (await cancel(gateway)).status == 202
    assert cancelled(gateway) == [1, 2]
    show(gateway, shown(Status.QUEUED, cycles=2))
    assert (await cancel(gateway)).status == 202
    assert cancelled(gateway) == [1, 2, 2]


async def test_a_resend_that_never_reached_kafka_keeps_nothing_from_being_cancelled(gateway: Gateway) -> None:
    show(gateway, shown(Status.FAILED))
    gateway.publisher.error = PublishFailed("away")
    assert (await resend(gateway)).status == 503
    gateway.publisher.error = None
    assert (await cancel(gateway)).status == 202
    assert cancelled(gateway) == [1, 2]


@pytest.mark.parametrize("status", sorted(NEGATIVE_FINALS))
async def test_what_ended_undelivered_is_sent_again_in_a_new_cycle(gateway: Gateway, status: Status) -> None:
    batch = UUID("019b30cb-7a50-7000-8000-000000000001")
    show(gateway, shown(status, batch_id=batch))
    before = datetime.now(UTC)
    answer = await resend(gateway, key=SEND_KEY)
    location = f"/sms/{ID}"
    assert answer.body == {"id": str(ID), "number": 7, "status": "accepted", "location": location}
    assert (answer.status, answer.headers["Location"]) == (202, location)
    (record,), (event,) = gateway.publisher.records, gateway.publisher.events
    assert (record.topic, record.key) == ("sms.requested.high", b"demo/client/17")
    assert event.id == event_id(SmsRequested.TYPE, ID, 2, 1)
    data, message = event.data, event.data.message
    assert data.leg == Leg(2, 1, event.time)
    assert before <= event.time <= datetime.now(UTC)
    assert (data.requested_by, data.custom_data) == ("sender", {"order": 1})
    assert (message.text, message.number, message.sender_id, message.tags) == ("Hello", 7, "CLINIC", ("a",))
    assert (message.priority, message.batch_id, message.accepted_at) == (Priority.HIGH, batch, ACCEPTED_AT)
    assert message.valid_until - event.time == timedelta(minutes=10)
    assert message.scheduled_at is None


async def test_two_resends_at_once_are_one(gateway: Gateway) -> None:
    show(gateway, shown(Status.FAILED))
    answers = await asyncio.gather(*(resend(gateway, key=key) for key in (SEND_KEY, SEND_KEY)), resend(gateway))
    assert {a.status for a in answers} == {202}
    assert len({r.value for r in gateway.publisher.records}) == 1


async def test_it_is_valid_as_long_as_at_first_from_now_on_whenever_that_ended(gateway: Gateway) -> None:
    show(gateway, shown(Status.CANCELLED, cycles=2, valid_until=ACCEPTED_AT + timedelta(days=30)))
    assert (await resend(gateway)).status == 202
    (event,) = gateway.publisher.events
    assert event.data.message.valid_until - event.time == timedelta(minutes=10)


async def test_where_the_outbox_does_not_say_how_long_that_was_it_is_as_long_as_any(gateway: Gateway) -> None:
    show(gateway, shown(Status.FAILED, validity_seconds=None))
    assert (await resend(gateway)).status == 202
    (event,) = gateway.publisher.events
    assert event.data.message.valid_until - event.time == timedelta(hours=48)


@pytest.mark.parametrize("status", sorted(set(Status) - NEGATIVE_FINALS - {Status.REFUSED}))
async def test_anything_else_is_not_sent_again(gateway: Gateway, status: Status) -> None:
    show(gateway, shown(status))
    answer = await resend(gateway)
    assert answer.status == 409
    assert status in answer.body["detail"]
    assert gateway.publisher.records == []


async def test_it_is_sent_again_three_times_at_most(gateway: Gateway) -> None:
    show(gateway, shown(Status.FAILED, cycles=3))
    assert (await resend(gateway)).status == 202
    show(gateway, shown(Status.FAILED, cycles=4))
    answer = await resend(gateway)
    assert answer.status == 409
    assert "3 times" in answer.body["detail"]
    assert len(gateway.publisher.records) == 1


async def test_an_erased_text_is_not_sent_again(gateway: Gateway) -> None:
    show(gateway, shown(Status.FAILED, message=None))
    answer = await resend(gateway)
    assert answer.status == 409
    assert "erased" in answer.body["detail"]
    assert gateway.publisher.records == []


@pytest.mark.parametrize("unknown", ["number", "priority"])
async def test_what_the_outbox_knows_in_part_is_503(gateway: Gateway, unknown: str) -> None:
    show(gateway, shown(Status.FAILED, **{unknown: None}))
    answer = await resend(gateway)
    assert (answer.status, "Retry-After" in answer.headers) == (503, True)


@pytest.mark.parametrize("before", [Status.IN_DOUBT, Status.UNKNOWN])
@pytest.mark.parametrize(("said", "leg"), [(Status.DELIVERED, 3), (Status.FAILED, 3), (Status.FAILED, 1)])
async def test_what_the_carrier_says_of_a_doubtful_message_ends_it(
    gateway: Gateway, before: Status, said: Status, leg: int
) -> None:
    began = ACCEPTED_AT + timedelta(seconds=9)
    later = transition(Status.ACCEPTED, 2).model_copy(update={"leg": leg, "at": began})
    by_a_clock_behind = transition(Status.QUEUED, 2).model_copy(update={"leg": leg})
    show(gateway, shown(before, cycles=2, leg=leg, history=(*shown(before).history, by_a_clock_behind, later)))
    asked_at = datetime.now(UTC)
    answer = await say(gateway, said)
    location = f"/sms/{ID}"
    assert answer.body == {"id": str(ID), "status": said, "location": location}
    assert (answer.status, answer.headers["Location"]) == (202, location)
    _, record = gateway.publisher.records
    assert (record.topic, record.key) == ("sms.status", str(ID).encode())
    assert cancelled(gateway) == [2], "a late refusal must not have it sent in another leg"
    event = decoder(STATUS)(record.value or b"")
    data = event.data
    assert (event.subject, data.status, data.part, data.try_number) == (ID, said, 0, 0)
    assert data.leg == Leg(2, leg, began)
    assert asked_at <= data.observed_at == event.time <= datetime.now(UTC)
    assert data.reason is not None
    assert (data.reason.code, data.reason.words) == ("operator", "said by the API key all")


@pytest.mark.parametrize(("said", "legs"), [("failed", [1, 2]), ("delivered", [2])])
async def test_failed_is_said_of_each_leg_that_is_in_doubt_lest_the_other_speaks_then(
    gateway: Gateway, said: str, legs: list[int]
) -> None:
    def step(status: Status, leg: int) -> Transition:
        return transition(status, 1).model_copy(update={"leg": leg})

    doubt = [step(status, leg) for leg in (1, 2) for status in (Status.ACCEPTED, Status.IN_DOUBT)]
    sent = [step(Status.ACCEPTED, 3), step(Status.SUBMITTED, 3)]
    show(gateway, shown(Status.IN_DOUBT, leg=2, history=(*doubt, *sent)))
    assert (await say(gateway, said)).status == 202
    told = [decoder(STATUS)(r.value or b"").data for r in gateway.publisher.records if r.topic == STATUS.name]
    assert [(each.leg.leg, each.status) for each in told] == [(leg, said) for leg in legs]
    assert cancelled(gateway) == [1]


async def test_said_again_it_is_the_very_same_event_and_otherwise_another(gateway: Gateway) -> None:
    show(gateway, shown(Status.IN_DOUBT))
    said = [await say(gateway), await say(gateway, key=OUTCOME_KEY), await say(gateway, "delivered")]
    assert {a.status for a in said} == {202}
    first, again, other = (r.value for r in gateway.publisher.records if r.topic == STATUS.name)
    assert first == again != other
    assert cancelled(gateway) == [1, 1, 1]


async def test_an_outcome_is_said_of_the_cycle_that_is_shown_and_leaves_a_newer_one_alone(gateway: Gateway) -> None:
    show(gateway, shown(Status.IN_DOUBT, cycles=2, cycle=1))
    assert (await say(gateway)).status == 202
    told = [decoder(STATUS)(r.value or b"").data for r in gateway.publisher.records if r.topic == STATUS.name]
    assert [each.leg.cycle for each in told] == cancelled(gateway) == [1]


async def test_an_outcome_is_not_told_before_its_cycle_is_cancelled(gateway: Gateway) -> None:
    show(gateway, shown(Status.IN_DOUBT))
    gateway.publisher.error = PublishFailed("away")
    for let_through, topics in ((0, []), (1, [COMMANDS.name])):
        gateway.publisher.calls, gateway.publisher.let_through = 0, let_through
        assert (await say(gateway)).status == 503
        assert [record.topic for record in gateway.publisher.records] == topics
    gateway.publisher.error = None
    assert (await say(gateway)).status == 202
    assert [record.topic for record in gateway.publisher.records] == [COMMANDS.name, COMMANDS.name, STATUS.name]


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.IN_DOUBT, Status.UNKNOWN, Status.REFUSED}))
async def test_of_anything_else_nobody_is_asked(gateway: Gateway, status: Status) -> None:
    show(gateway, shown(status))
    answer = await say(gateway)
    assert answer.status == 409
    assert status in answer.body["detail"]
    assert gateway.publisher.records == []


@pytest.mark.parametrize("body", [{}, {"status": "submitted"}, {"status": "failed", "words": "x"}])
async def test_only_delivered_or_failed_can_be_said(gateway: Gateway, body: Any) -> None:
    show(gateway, shown(Status.IN_DOUBT))
    answer = await gateway.ask("POST", f"/sms/{ID}/outcome", json=body)
    assert answer.status == 400
    assert [e["field"] for e in answer.body["errors"]] == ["words" if "words" in body else "status"]
    assert gateway.publisher.records == []


@pytest.mark.parametrize("ask", [cancel, resend, say])
async def test_an_unknown_message_is_404_also_if_it_is_another_tenants(gateway: Gateway, ask: Any) -> None:
    gateway.projection.status, gateway.projection.content_type = 404, "application/problem+json"
    gateway.projection.body = b'{"title": "No such message is known", "status": 404}'
    assert (await ask(gateway, key=OTHER_TENANT_KEY)).status == 404
    assert [a.tenant for a in gateway.projection.asked] == ["other"]
    assert gateway.publisher.records == []


@pytest.mark.parametrize(("ask", "status"), [(cancel, Status.FAILED), (resend, Status.FAILED), (say, Status.IN_DOUBT)])
async def test_what_kafka_or_postgres_does_not_take_is_503_and_may_be_repeated(
    gateway: Gateway, ask: Any, status: Status
) -> None:
    show(gateway, shown(status))
    gateway.asked.error = ConnectionRefusedError()
    assert (await ask(gateway)).status == 503
    assert gateway.postgres.missing() is not None
    gateway.asked.error = None
    gateway.publisher.error = PublishFailed("away")
    assert (await ask(gateway)).status == 503
    gateway.publisher.error = None
    assert (await ask(gateway)).status == 202
    assert gateway.postgres.missing() is None


@pytest.mark.parametrize(("ask", "status"), [(cancel, Status.FAILED), (resend, Status.FAILED), (say, Status.IN_DOUBT)])
async def test_what_is_asked_belongs_to_the_trace_of_who_asked_first(
    gateway: Gateway, ask: Any, status: Status
) -> None:
    show(gateway, shown(status))
    for digit in "ab":
        trace = f"00-{digit * 32}-{'c' * 16}-01"
        assert (await ask(gateway, headers={"traceparent": trace})).status == 202
    traces = {json.loads(record.value or b"")["traceparent"][:36] for record in gateway.publisher.records}
    assert traces == {f"00-{'a' * 32}-"}


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/sms/no-uuid"), ("POST", "/sms/no-uuid/resend")])
async def test_an_id_that_is_no_uuid_is_refused_by_name(gateway: Gateway, method: str, path: str) -> None:
    answer = await gateway.ask(method, path)
    assert answer.status == 400
    assert [e["field"] for e in answer.body["errors"]] == ["id"]


@pytest.mark.parametrize(("ask", "scope"), [(cancel, "sms:cancel"), (say, "sms:outcome")])
async def test_cancelling_and_saying_need_scopes_of_their_own(gateway: Gateway, ask: Any, scope: str) -> None:
    answer = await ask(gateway, key=SEND_KEY)
    assert answer.status == 403
    assert scope in answer.body["detail"]
    assert gateway.projection.asked == []
    assert (await resend(gateway, key=None)).status == 401
