"""Deferrals and commands for the scheduler's tests."""

from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

from libs.contracts.events import (
    CommandKind,
    Leg,
    Message,
    MessageEvent,
    PersonKind,
    Priority,
    Reason,
    Recipient,
    SmsCommand,
    SmsDeferred,
    event_id,
)

NOW = datetime(2026, 11, 21, 8, 30, 15, 250_001, tzinfo=UTC)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

_numbers = count(1)


def new_message_id(at: datetime = NOW) -> UUID:
    return UUID(int=(int(at.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62) | next(_numbers))


def deferred(
    due_at: datetime = NOW,
    message_id: UUID | None = None,
    *,
    person: str = "17",
    leg: int = 2,
    cycle: int = 1,
    text: str = "Your balance is low",
    refused: tuple[int, int] = (0, 0),
    priority: Priority = Priority.NORMAL,
) -> MessageEvent[SmsDeferred]:
    message_id = message_id or new_message_id()
    of = Message(
        tenant="acme",
        recipient=Recipient(PersonKind.CLIENT, person),
        number=1,
        text=text,
        accepted_at=NOW,
        valid_until=due_at + timedelta(hours=48),
        priority=priority,
        scheduled_at=None if refused[0] else due_at,
    )
    return MessageEvent(
        id=event_id(SmsDeferred.TYPE, message_id, cycle, leg),
        type=SmsDeferred.TYPE,
        source="postrider/resolver",
        time=NOW,
        subject=message_id,
        data=SmsDeferred(
            message=of,
            leg=Leg(cycle, leg, due_at),
            due_at=due_at,
            deferred_at=NOW,
            reason=Reason("busy", "the carrier is busy") if refused[0] else None,
            refused_part=refused[0],
            refused_try=refused[1],
        ),
        traceparent=TRACE,
    )


def command(message_id: UUID, kind: CommandKind = CommandKind.CANCEL, cycle: int = 1) -> MessageEvent[SmsCommand]:
    data = SmsCommand(tenant="acme", recipient=Recipient(PersonKind.CLIENT, "17"), kind=kind, cycle=cycle, asked_at=NOW)
    return MessageEvent(
        id=event_id(SmsCommand.TYPE, message_id, kind, cycle),
        type=SmsCommand.TYPE,
        source="postrider/api_gateway",
        time=NOW,
        subject=message_id,
        data=data,
        traceparent=TRACE,
    )
