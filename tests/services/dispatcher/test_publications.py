"""What is told of an attempt, as the receipts service needs it."""

import json
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from libs.bus.codec import decoder_for
from libs.contracts.events import MessageEvent, Priority, SmsDeferred, SmsStatus, person_key
from libs.contracts.statuses import Status
from services.dispatcher.attempts import Attempt, LegState, Outcome, attempt_reference, due_at
from services.dispatcher.publications import OWN_REASONS, events_of
from tests.services.dispatcher.builders import dispatch_event

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
read_status = decoder_for(MessageEvent[SmsStatus])
read_deferred = decoder_for(MessageEvent[SmsDeferred])


@pytest.mark.parametrize(
    ("outcome", "topics"),
    [
        (Outcome.DEFERRED, ["sms.deferred"]),
        (Outcome.RETURNED, ["sms.returned"]),
        (Outcome.LATE_RETURNED, ["sms.status", "sms.returned"]),
        (Outcome.DOUBT, ["sms.status", "sms.returned"]),
    ],
)
def test_high_priority_keeps_topics_of_its_own_in_the_next_leg(outcome: Outcome, topics: list[str]) -> None:
    for priority, suffix in ((Priority.NORMAL, ""), (Priority.HIGH, ".high")):
        event = dispatch_event(priority=priority)
        attempt = Attempt(1, 1, uuid4(), outcome, observed_at=event.time)
        events = events_of(LegState(event), attempt, resend=True)
        assert [e.topic for e in events] == [t if t == "sms.status" else t + suffix for t in topics]


@pytest.mark.parametrize(
    ("outcome", "opened_by_doubt", "refused"),
    [
        (Outcome.DEFERRED, False, (2, 3)),
        (Outcome.LATE_RETURNED, False, (2, 3)),
        (Outcome.RETURNED, False, (0, 0)),
        (Outcome.DOUBT, False, (0, 0)),
        (Outcome.LATE_FAILED, True, (0, 0)),
    ],
)
def test_the_event_that_opens_a_leg_names_the_try_that_proved_that_it_may_and_none_where_there_is_doubt(
    outcome: Outcome, opened_by_doubt: bool, refused: tuple[int, int]
) -> None:
    event = replace(dispatch_event(), traceparent=TRACEPARENT)
    opened_at = event.time if opened_by_doubt else None
    attempt = Attempt(2, 3, uuid4(), outcome, observed_at=event.time, leg_opened_at=opened_at)
    *before, opening = events_of(LegState(event), attempt, resend=not opened_by_doubt)
    assert all(json.loads(each.value or b"")["data"]["status"] != "failed" for each in before), "it goes on"
    assert opening.key == person_key(event.data.message.tenant, event.data.message.recipient)
    told = json.loads(opening.value or b"")
    assert (told["data"].get("refused_part", 0), told["data"].get("refused_try", 0)) == refused
    assert (told["traceparent"], told["subject"]) == (TRACEPARENT, str(event.subject))


def test_a_deferral_begins_the_next_leg_when_it_is_due_and_is_told_when_it_was_refused() -> None:
    leg = LegState(dispatch_event())
    refused_at = leg.event.time + timedelta(seconds=7)
    attempt = Attempt(1, 1, uuid4(), Outcome.DEFERRED, observed_at=refused_at)
    (event,) = events_of(leg, attempt, resend=False)
    told = read_deferred(event.value or b"")
    assert (told.data.due_at, told.data.leg.leg_at) == (due_at(leg, refused_at),) * 2
    assert (told.time, told.data.deferred_at, told.data.leg.leg) == (refused_at, refused_at, 2)


def test_each_status_of_each_try_is_an_event_of_its_own_under_the_messages_id() -> None:
    event = replace(dispatch_event(), traceparent=TRACEPARENT)
    tries = [(part, n, outcome) for part in (1, 2) for n in (1, 2) for outcome in (Outcome.DOUBT, Outcome.ACCEPTED)]
    attempts = [Attempt(part, n, uuid4(), outcome, observed_at=event.time) for part, n, outcome in tries]
    told = [each for attempt in attempts for each in events_of(LegState(event), attempt, resend=False)]
    assert {each.key for each in told} == {str(event.subject).encode()}
    read = [read_status(each.value or b"") for each in told]
    assert len({each.id for each in read}) == len(tries)
    assert {each.traceparent for each in read} == {TRACEPARENT}


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome.CANCELLED, Status.CANCELLED),
        (Outcome.EXPIRED, Status.EXPIRED),
        (Outcome.DOUBT_BY_PEER, Status.IN_DOUBT),
    ],
)
def test_what_no_carrier_gave_a_reason_for_says_why(outcome: Outcome, status: Status) -> None:
    data, _ = told(outcome)
    assert (data.status, data.reason) == (status, OWN_REASONS[outcome])


def told(outcome: Outcome, provider_id: str | None = None, resend: bool = False) -> tuple[SmsStatus, LegState]:
    """The status that an attempt with this outcome brings, and the attempt's leg."""
    event = dispatch_event()
    leg = LegState(event)
    attempt = Attempt(1, 1, uuid4(), outcome, observed_at=event.time, provider_id=provider_id)
    status, *_ = events_of(leg, attempt, resend)
    return read_status(status.value or b"").data, leg


@pytest.mark.parametrize(
    ("outcome", "resend", "status"),
    [
        (Outcome.DOUBT, False, Status.IN_DOUBT),
        (Outcome.DOUBT_BY_PEER, False, Status.IN_DOUBT),
        (Outcome.LATE_FAILED, False, Status.FAILED),
        (Outcome.LATE_FAILED, True, Status.REFUSED),
        (Outcome.LATE_RETURNED, False, Status.REFUSED),
    ],
)
def test_doubt_and_its_end_name_the_reference_and_the_number_that_a_receipt_would_repeat(
    outcome: Outcome, resend: bool, status: Status
) -> None:
    data, leg = told(outcome, resend=resend)
    assert data.status is status
    assert (data.reference, data.destination) == (attempt_reference(leg, 1, 1), leg.event.data.phone)


@pytest.mark.parametrize("nothing", [None, ""])
def test_so_does_an_acceptance_without_an_id(nothing: str | None) -> None:
    data, leg = told(Outcome.ACCEPTED, nothing)
    assert (data.status, data.provider_id) == (Status.SUBMITTED, None)
    assert (data.reference, data.destination) == (attempt_reference(leg, 1, 1), leg.event.data.phone)


def test_an_id_is_told_with_the_number_alone() -> None:
    data, leg = told(Outcome.ACCEPTED, "a")
    assert (data.provider_id, data.reference, data.destination) == ("a", None, leg.event.data.phone)


def test_a_refusal_that_was_never_in_doubt_names_neither() -> None:
    data, _ = told(Outcome.FAILED)
    assert (data.status, data.reference, data.destination) == (Status.FAILED, None, None)
