from libs.bus.codec import decoder_for
from libs.contracts.events import (
    Encoding,
    Leg,
    MessageEvent,
    PersonKind,
    Priority,
    Reason,
    SmsDispatch,
    SmsStatus,
    event_id,
)
from libs.contracts.statuses import Status
from services.resolver.deciding import Deferred, Dispatch, Ended
from services.resolver.publications import publication
from tests.services.resolver.builders import NOW, PHONE, TRACE, message, requested, returned

GOES_OUT = Dispatch(NOW, "demo", PHONE, "Jane Doe", "BANK", Encoding.GSM7, 2)
ENDS = Ended(NOW, Status.REJECTED, Reason("no_number", "no phone number is known for this person"))

read_dispatch = decoder_for(MessageEvent[SmsDispatch])
read_status = decoder_for(MessageEvent[SmsStatus])


def test_a_dispatch_carries_the_message_and_the_snapshot_of_the_person():
    cause = requested(message())
    sent = publication(cause, GOES_OUT)
    assert (sent.topic, sent.key) == ("sms.dispatch.demo", b"acme/client/17")
    event = read_dispatch(sent.value or b"")
    assert (event.subject, event.time, event.traceparent) == (cause.subject, NOW, TRACE)
    assert event.data == SmsDispatch(
        message=cause.data.message,
        leg=cause.data.leg,
        gateway="demo",
        phone=PHONE,
        person_name="Jane Doe",
        source_address="BANK",
        encoding=Encoding.GSM7,
        segments=2,
        decided_at=NOW,
    )


def test_high_priority_stays_on_topics_of_its_own():
    urgent = requested(message(priority=Priority.HIGH, scheduled_at=NOW))
    assert publication(urgent, GOES_OUT).topic == "sms.dispatch.demo.high"
    assert publication(urgent, Deferred(NOW)).topic == "sms.deferred.high"


def test_the_end_of_a_message_is_a_status_of_the_whole_keyed_by_its_id():
    cause = requested(message("4711", kind=PersonKind.STAFF))
    sent = publication(cause, ENDS)
    assert (sent.topic, sent.key) == ("sms.status", str(cause.subject).encode())
    event = read_status(sent.value or b"")
    assert (event.subject, event.time, event.traceparent) == (cause.subject, NOW, TRACE)
    assert event.data == SmsStatus(
        tenant="acme",
        recipient=cause.data.message.recipient,
        leg=cause.data.leg,
        part=0,
        parts=0,
        try_number=0,
        status=Status.REJECTED,
        observed_at=NOW,
        reason=ENDS.reason,
    )


def test_event_ids_come_from_the_coordinates_alone():
    first = requested(message())
    again = returned(first.data.message, first.subject, Leg(1, 2, NOW))
    one = read_dispatch(publication(first, GOES_OUT).value or b"").id
    assert one == event_id("postrider.sms.dispatch.v1", first.subject, 1, 1)
    assert read_dispatch(publication(first, GOES_OUT._replace(phone="+254700000000")).value or b"").id == one
    assert read_dispatch(publication(again, GOES_OUT).value or b"").id != one


def test_a_repeat_is_the_same_to_the_byte():
    cause = requested(message())
    assert publication(cause, GOES_OUT) == publication(cause, GOES_OUT)
    assert publication(cause, ENDS) == publication(cause, ENDS)
