"""Keys and ids as they are where Postrider runs: with others a person's records would change places, and repeats would be new events."""

from datetime import UTC, datetime
from uuid import UUID

from libs.contracts.endings import whole_ending
from libs.contracts.events import (
    Leg,
    MessageEvent,
    PersonKind,
    Reason,
    Recipient,
    SmsStatus,
    event_id,
    person_key,
    receipt_key,
)
from libs.contracts.statuses import Status

AT = datetime(2026, 1, 31, 8, tzinfo=UTC)


def test_a_key_says_whose_it_is() -> None:
    assert person_key("bank", Recipient(PersonKind.CLIENT, "17")) == b"bank/client/17"
    assert receipt_key("demo", "A1") == b"demo/A1"


def test_an_event_has_the_id_of_all_that_makes_it_that_event() -> None:
    assert event_id(SmsStatus.TYPE, UUID(int=1), 1, 12, Status.FAILED) == "98cf4863894a28e3714614578369c1f5"
    assert len({event_id("a", *parts) for parts in ((1, 23), (12, 3), (12, 4), (12,), (1, 2))}) == 5


def test_two_ends_of_a_message_are_two_events_and_each_says_why() -> None:
    def ended(status: Status) -> MessageEvent[SmsStatus]:
        recipient, reason = Recipient(PersonKind.CLIENT, "17"), Reason(status, status)
        return whole_ending(
            UUID(int=1), "bank", recipient, Leg(2, 3, AT), status, reason, at=AT, source="test", traceparent="00"
        )

    cancelled, expired = ended(Status.CANCELLED), ended(Status.EXPIRED)
    assert cancelled.id != expired.id
    assert cancelled.id == ended(Status.CANCELLED).id
    for event, status in ((cancelled, Status.CANCELLED), (expired, Status.EXPIRED)):
        assert (event.data.status, event.data.reason) == (status, Reason(status, status))
        assert (event.data.leg, event.data.part, event.traceparent) == (Leg(2, 3, AT), 0, "00")
