"""Messages, events and contacts for the resolver's tests; each argument that matters to a test is said there."""

from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

from libs.contracts.events import (
    CommandKind,
    ContactChanged,
    Event,
    Leg,
    Message,
    MessageEvent,
    PersonKind,
    Priority,
    Reason,
    Recipient,
    SmsCommand,
    SmsRequested,
    SmsReturned,
    UpstreamRecipient,
    event_id,
)
from libs.service_kit.config_file import Configuration
from services.resolver.contacts import Contact

NOW = datetime(2026, 11, 21, 8, 30, 15, 250_001, tzinfo=UTC)
PHONE = "+254712345678"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

CONFIGURATION = Configuration.model_validate(
    {
        "gateways": [
            {"id": "demo", "type": "smpp", "host": "127.0.0.1", "port": 2775, "systemId": "x", "sourceAddress": "BANK"},
            {"id": "other", "type": "smpp", "host": "127.0.0.1", "port": 2776, "systemId": "x"},
        ],
        "defaultGateway": "demo",
        "defaultRegion": "KE",
    }
)
GATEWAY = CONFIGURATION.gateway(CONFIGURATION.default_gateway)

_numbers = count(1)


def new_message_id() -> UUID:
    return UUID(int=(int(NOW.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62) | next(_numbers))


def message(
    person: str = "17",
    *,
    kind: PersonKind = PersonKind.CLIENT,
    tenant: str = "acme",
    text: str = "Your balance is low",
    priority: Priority = Priority.NORMAL,
    sender_id: str | None = None,
    allow_unknown_number: bool = False,
    accepted_at: datetime = NOW,
    valid_for: timedelta = timedelta(hours=48),
    scheduled_at: datetime | None = None,
) -> Message:
    return Message(
        tenant=tenant,
        recipient=Recipient(kind, person),
        number=1,
        text=text,
        accepted_at=accepted_at,
        valid_until=(scheduled_at or accepted_at) + valid_for,
        priority=priority,
        sender_id=sender_id,
        allow_unknown_number=allow_unknown_number,
        scheduled_at=scheduled_at,
    )


def requested(of: Message, message_id: UUID | None = None) -> MessageEvent[SmsRequested]:
    message_id = message_id or new_message_id()
    return MessageEvent(
        id=event_id(SmsRequested.TYPE, message_id, 1, 1),
        type=SmsRequested.TYPE,
        source="postrider/api_gateway",
        time=of.accepted_at,
        subject=message_id,
        data=SmsRequested(message=of, leg=Leg(1, 1, of.accepted_at), requested_by="demo", custom_data={"ticket": 7}),
        traceparent=TRACE,
    )


def returned(of: Message, message_id: UUID, leg: Leg) -> MessageEvent[SmsReturned]:
    return MessageEvent(
        id=event_id(SmsReturned.TYPE, message_id, leg.cycle, leg.leg),
        type=SmsReturned.TYPE,
        source="postrider/dispatcher",
        time=leg.leg_at,
        subject=message_id,
        data=SmsReturned(message=of, leg=leg, reason=Reason("asked", "sent again")),
        traceparent=TRACE,
    )


def command(
    message_id: UUID, kind: CommandKind = CommandKind.CANCEL, cycle: int = 1, person: str = "17"
) -> MessageEvent[SmsCommand]:
    data = SmsCommand(
        tenant="acme", recipient=Recipient(PersonKind.CLIENT, person), kind=kind, cycle=cycle, asked_at=NOW
    )
    return MessageEvent(
        id=event_id(SmsCommand.TYPE, message_id, kind, cycle),
        type=SmsCommand.TYPE,
        source="postrider/api_gateway",
        time=NOW,
        subject=message_id,
        data=data,
        traceparent=TRACE,
    )


def contact_changed(
    person: str = "17",
    *,
    phone: str | None = PHONE,
    name: str | None = "Jane Doe",
    changed_at: datetime = NOW,
    deleted: bool = False,
    tenant: str = "acme",
    kind: PersonKind = PersonKind.CLIENT,
) -> Event[ContactChanged]:
    change = ContactChanged(
        tenant=tenant,
        recipient=UpstreamRecipient(kind, person),
        changed_at=changed_at,
        phone=phone,
        name=name,
        deleted=deleted,
    )
    return Event(
        id=event_id(ContactChanged.TYPE, tenant, kind, person, changed_at),
        type=ContactChanged.TYPE,
        source="upstream",
        time=changed_at,
        subject=f"{kind}/{person}",
        data=change,
    )


def contact(
    phone: str | None = PHONE, *, problem: str | None = None, name: str | None = "Jane Doe", deleted: bool = False
) -> Contact:
    return Contact(phone, problem, name, NOW, deleted)
