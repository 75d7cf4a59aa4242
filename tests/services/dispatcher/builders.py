"""Dispatch events to claim, and their records."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from aiokafka.structs import TopicPartition

from libs.bus.record import Record
from libs.contracts import topics
from libs.contracts.events import (
    Encoding,
    Leg,
    Message,
    MessageEvent,
    PersonKind,
    Priority,
    Recipient,
    SmsDispatch,
    event_id,
)
from libs.sms_text.segments import count_segments

GATEWAY = "demo"


def dispatch_event(
    text: str = "hello",
    *,
    message_id: UUID | None = None,
    valid_seconds: float = 3600,
    priority: Priority = Priority.NORMAL,
    phone: str = "+254711000001",
    leg: int = 1,
    gateway: str = GATEWAY,
    person: str = "1",
) -> MessageEvent[SmsDispatch]:
    now = datetime.now(UTC)
    subject = message_id or uuid4()
    return MessageEvent(
        id=event_id(SmsDispatch.TYPE, subject, 1, leg),
        type=SmsDispatch.TYPE,
        source="test",
        time=now,
        subject=subject,
        data=SmsDispatch(
            message=Message(
                tenant="bank",
                recipient=Recipient(PersonKind.CLIENT, person),
                number=1,
                text=text,
                accepted_at=now,
                valid_until=now + timedelta(seconds=valid_seconds),
                priority=priority,
            ),
            leg=Leg(1, leg, now),
            gateway=gateway,
            phone=phone,
            person_name=None,
            source_address="BANK",
            encoding=Encoding.GSM7,
            segments=count_segments(text),
            decided_at=now,
        ),
    )


def record_of(event: MessageEvent[SmsDispatch], offset: int = 0) -> Record:
    topic = topics.dispatch(event.data.gateway, event.data.message.priority)
    return Record(TopicPartition(topic.name, 0), offset, None, None, (), event)
