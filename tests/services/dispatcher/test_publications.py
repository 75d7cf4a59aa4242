"""What is told of an attempt, as the receipts service needs it."""

from uuid import uuid4

import pytest

from libs.bus.codec import decoder_for
from libs.contracts.events import MessageEvent, Priority, SmsStatus
from libs.contracts.statuses import Status
from services.dispatcher.attempts import Attempt, LegState, Outcome, attempt_reference
from services.dispatcher.publications import events_of
from tests.services.dispatcher.builders import dispatch_event

read_status = decoder_for(MessageEvent[SmsStatus])


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
