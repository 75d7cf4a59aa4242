import dataclasses
from typing import Any

import pytest
from msgspec.structs import replace

from libs.bus.codec import encode
from libs.contracts.events import Reason, ReceiptState, SmsStatus, event_id
from libs.contracts.fold import apply, new_fold, view
from libs.contracts.statuses import Status
from services.receipts.handlers import outgoing, sort_out
from services.receipts.matching import Match, Receipt, Registration
from services.receipts.statuses import STATUSES, statuses
from tests.services.receipts.examples import (
    KEY,
    TRACE,
    message_id,
    published,
    receipt,
    seconds,
    submitted,
    trace,
    traces,
)


def match(state: ReceiptState = ReceiptState.DELIVERED, **changes: Any) -> Match:
    registrations, _, receipts, _ = sort_out([submitted("id", part=2, parts=3), receipt("id", state, **changes)], KEY)
    return Match(receipts[0], registrations[0])


@pytest.mark.parametrize(
    ("state", "status", "reason"),
    [
        ("delivered", "delivered", None),
        ("enroute", "buffered", Reason("receipt.enroute", "err 0A1")),
        ("accepted", "buffered", Reason("receipt.accepted", "err 0A1")),
        ("undeliverable", "failed", Reason("receipt.undeliverable", "err 0A1")),
        ("deleted", "failed", Reason("receipt.deleted", "err 0A1")),
        ("expired", "expired", Reason("receipt.expired", "err 0A1")),
        ("rejected", "rejected", Reason("receipt.rejected", "err 0A1")),
        ("unknown", "unknown", Reason("receipt.unknown", "err 0A1")),
    ],
)
def test_a_state_becomes_a_status_with_the_carriers_error(state: str, status: str, reason: Reason | None) -> None:
    (event,) = statuses(match(ReceiptState(state), error="0A1"))
    assert (event.data.status, event.data.reason) == (status, reason)


@pytest.mark.parametrize(
    ("word", "error", "words"),
    [
        ("SENT", "000", "the carrier says SENT, err 000"),
        ("SENT", None, "the carrier says SENT"),
        (None, "000", "err 000"),
        (None, None, "the receipt reads as enroute"),
    ],
)
def test_the_carriers_own_word_is_told_with_its_error(word: str | None, error: str | None, words: str) -> None:
    (event,) = statuses(match(ReceiptState.ENROUTE, word=word, error=error))
    assert (event.data.status, event.data.reason) == (Status.BUFFERED, Reason("receipt.enroute", words))


def test_every_state_has_a_status() -> None:
    assert STATUSES.keys() == set(ReceiptState)


def test_the_status_is_told_of_the_attempt_in_the_receipts_time_and_the_messages_trace() -> None:
    found = match(carrier_time="2603011202")
    ((key, value),) = outgoing([found])
    (event,) = published([(key, value)])
    data = event.data
    assert key == str(message_id(1)).encode()
    assert (event.subject, event.source, event.time, traces([event])) == (
        message_id(1),
        "postrider/receipts",
        seconds(2),
        [trace(1)[3:35]],
    )
    assert event.id == event_id(SmsStatus.TYPE, message_id(1), 1, 1, 2, 1, "delivered", found.receipt.id)
    assert data == SmsStatus(
        tenant="bank",
        recipient=data.recipient,
        leg=submitted("id").data.leg,
        part=2,
        parts=3,
        try_number=1,
        status=Status.DELIVERED,
        observed_at=seconds(2),
        gateway="demo",
        provider_id="id",
        carrier_time="2603011202",
    )


@pytest.mark.parametrize("traceparent", [None, "", "junk", trace(1).replace("abab", "what", 1)])
def test_a_status_of_a_message_without_a_trace_is_in_the_receipts(traceparent: str | None) -> None:
    untraced = dataclasses.replace(submitted("id"), traceparent=traceparent)
    registrations, _, receipts, _ = sort_out([untraced, receipt("id")], KEY)
    (event,) = statuses(Match(receipts[0], registrations[0]))
    assert event.traceparent == TRACE


def test_the_number_is_in_no_event_that_leaves() -> None:
    (event,) = statuses(match())
    assert b"254700" not in encode(event)


def test_the_receipt_that_ended_a_doubt_proves_the_attempt_accepted_first() -> None:
    plain = match(ReceiptState.UNDELIVERABLE)
    resolved = Match(plain.receipt, replace(plain.registration, resolved_by=plain.receipt.id))
    first, second = statuses(resolved)
    assert (first.data.status, second.data.status) == (Status.SUBMITTED, Status.FAILED)
    assert first.data.observed_at == second.data.observed_at == seconds(2)
    assert first.data.provider_id == second.data.provider_id == "id"
    assert first.id != second.id
    assert traces([first, second]) == [trace(1)[3:35]] * 2
    assert first.traceparent != second.traceparent
    (later,) = statuses(Match(another(plain.receipt), resolved.registration))
    assert later.data.status is Status.FAILED


def test_the_fold_takes_a_receipt_as_proof_that_its_part_was_accepted() -> None:
    (event,) = statuses(match(ReceiptState.ENROUTE))
    fold = new_fold(event)
    apply(fold, event)
    assert view(fold).parts[0].provider_id == "id"


def another(known: Receipt) -> Receipt:
    return replace(known, id="another receipt")


def test_a_registration_keeps_a_fingerprint_and_no_number() -> None:
    registrations, _, receipts, _ = sort_out([submitted("id"), receipt("id")], KEY)
    assert isinstance(registrations[0], Registration)
    assert registrations[0].attempt.destination == receipts[0].destination
    assert "254700" not in repr((registrations, receipts))
