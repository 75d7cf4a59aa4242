from datetime import timedelta

import pytest

from libs.contracts.events import Encoding, Message, PersonKind, Reason
from libs.contracts.statuses import Status
from libs.sms_text.segments import Alphabet
from services.resolver.contacts import Contact
from services.resolver.deciding import Decision, Dispatch, Ended, decide
from tests.services.resolver.builders import GATEWAY, NOW, PHONE, contact, message


def decided(asked: Message, known: Contact | None) -> Decision:
    return decide(asked, known, NOW, GATEWAY)


def test_a_known_person_is_sent_to_through_the_gateway_with_number_and_name_as_of_now():
    assert decided(message(), contact()) == Dispatch(NOW, "demo", PHONE, "Jane Doe", "BANK", Encoding.GSM7, 1)


def test_the_sender_id_of_the_request_goes_before_the_gateways_source_address():
    decision = decided(message(sender_id="CLINIC"), contact())
    assert isinstance(decision, Dispatch)
    assert decision.source_address == "CLINIC"


@pytest.mark.parametrize(
    ("text", "encoding", "segments"),
    [
        ("a" * 160, Encoding.GSM7, 1),
        ("a" * 161, Encoding.GSM7, 2),
        ("€" * 80, Encoding.GSM7, 1),
        ("ж" * 70, Encoding.UCS2, 1),
        ("ж" * 71, Encoding.UCS2, 2),
        ("a" * (10 * 152), Encoding.GSM7, 10),
    ],
)
def test_the_text_is_counted_in_segments(text: str, encoding: Encoding, segments: int):
    decision = decided(message(text=text), contact())
    assert isinstance(decision, Dispatch)
    assert (decision.encoding, decision.segments) == (encoding, segments)


@pytest.mark.parametrize(
    ("text", "encoding", "segments"),
    [
        ("é" * 160, Encoding.GSM7, 1),
        ("{" * 81, Encoding.GSM7, 2),
        ("€" * 70, Encoding.UCS2, 1),
        ("€" * 71, Encoding.UCS2, 2),
    ],
)
def test_a_text_that_the_gateways_alphabet_lacks_is_counted_as_what_it_will_be_sent_in(
    text: str, encoding: Encoding, segments: int
):
    gateway = GATEWAY.model_copy(update={"default_alphabet": Alphabet.LATIN1})
    decision = decide(message(text=text), contact(), NOW, gateway)
    assert isinstance(decision, Dispatch)
    assert (decision.encoding, decision.segments) == (encoding, segments)


@pytest.mark.parametrize(
    ("known", "code"),
    [
        (None, "unknown_person"),
        (contact(None, name=None, deleted=True), "person_deleted"),
        (contact(None), "no_number"),
        (contact(None, problem="the number is too long"), "invalid_number"),
    ],
)
def test_a_person_who_cannot_be_reached_ends_the_message_rejected_with_the_reason(known: Contact | None, code: str):
    decision = decided(message(), known)
    assert isinstance(decision, Ended)
    assert (decision.status, decision.reason.code) == (Status.REJECTED, code)


def test_the_problem_of_an_invalid_number_is_told_in_words():
    decision = decided(message(), contact(None, problem="the number is too long"))
    assert isinstance(decision, Ended)
    assert decision.reason == Reason("invalid_number", "the number is too long")


@pytest.mark.parametrize("text", ["", "half a pair \ud83d", "a" * (10 * 152 + 1), "a" * (255 * 152 + 1)])
def test_a_text_that_cannot_be_sent_ends_the_message_rejected(text: str):
    decision = decided(message(text=text), contact())
    assert isinstance(decision, Ended)
    assert (decision.status, decision.reason.code) == (Status.REJECTED, "unsendable_text")
    assert not text or text not in decision.reason.words


def test_a_message_whose_validity_is_over_expires():
    just_over = decided(message(accepted_at=NOW - timedelta(hours=1), valid_for=timedelta(hours=1)), contact())
    assert isinstance(just_over, Ended)
    assert (just_over.status, just_over.reason.code) == (Status.EXPIRED, "validity_over")
    still_valid = decided(message(accepted_at=NOW, valid_for=timedelta(microseconds=1)), contact())
    assert isinstance(still_valid, Dispatch)


def test_a_bare_number_needs_the_senders_permission():
    refused = decided(message(kind=PersonKind.NUMBER), contact())
    assert isinstance(refused, Ended)
    assert refused.reason.code == "number_not_allowed"
    allowed = decided(message(kind=PersonKind.NUMBER, allow_unknown_number=True), contact())
    assert isinstance(allowed, Dispatch)
