"""Events as a dispatcher publishes them, and what the service makes of them."""

import itertools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from libs.bus.codec import decoder_for
from libs.bus.port import KeyValue
from libs.contracts.events import (
    Event,
    GatewayReceipt,
    Leg,
    MessageEvent,
    PersonKind,
    ReceiptState,
    Recipient,
    SmsStatus,
    event_id,
)
from libs.contracts.statuses import Status
from libs.contracts.without_receipt import NOT_ASKED
from libs.storage.database import Pool
from services.receipts import correlation, store
from services.receipts.handlers import sort_out
from services.receipts.matching import Match
from services.receipts.recent import RecentRegistrations

KEY = b"a key only for tests"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
GATEWAY = "demo"
DESTINATION = "+254700000001"
OTHER_DESTINATION = "+254700000002"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""Of receipts: that of whatever they came with."""

_numbers = itertools.count(1)
read_status = decoder_for(MessageEvent[SmsStatus])


def seconds(n: float) -> datetime:
    """A moment so long after noon."""
    return NOON + timedelta(seconds=n)


def message_id(n: int) -> UUID:
    return UUID(int=0x0195_0000_0000_7000_8000_0000_0000_0000 + n)


def trace(message: int) -> str:
    """The traceparent of a message, which all that leads to its submit carries."""
    return f"00-{0xABAB << 112 | message:032x}-00f067aa0ba902b7-01"


def attempt_status(message: int = 1, status: Status = Status.SUBMITTED, **changes: Any) -> MessageEvent[SmsStatus]:
    """What a dispatcher says of one attempt."""
    fields: dict[str, Any] = {
        "tenant": "bank",
        "recipient": Recipient(PersonKind.CLIENT, "17"),
        "leg": Leg(1, 1, NOON),
        "part": 1,
        "parts": 1,
        "try_number": 1,
        "status": status,
        "observed_at": NOON,
        "gateway": GATEWAY,
        "destination": DESTINATION,
        **changes,
    }
    data = SmsStatus(**fields)
    subject = message_id(message)
    return MessageEvent(
        id=event_id(subject, data.leg.cycle, data.leg.leg, data.part, data.try_number, status),
        type=SmsStatus.TYPE,
        source="postrider/dispatcher",
        time=data.observed_at,
        subject=subject,
        traceparent=trace(message),
        data=data,
    )


def submitted(provider_id: str, message: int = 1, **changes: Any) -> MessageEvent[SmsStatus]:
    return attempt_status(message, provider_id=provider_id, **changes)


def nameless(reference: int, message: int = 1, **changes: Any) -> MessageEvent[SmsStatus]:
    """Accepted without an id."""
    return attempt_status(message, reference=reference, **changes)


def unasked(message: int = 1, **changes: Any) -> MessageEvent[SmsStatus]:
    """Accepted by a carrier that was asked for no receipt."""
    return attempt_status(message, **{"provider_id": f"p{message}", "reason": NOT_ASKED, **changes})


def in_doubt(reference: int, message: int = 1, **changes: Any) -> MessageEvent[SmsStatus]:
    return attempt_status(message, Status.IN_DOUBT, reference=reference, **changes)


def disproved(
    reference: int, message: int = 1, status: Status = Status.REFUSED, **changes: Any
) -> MessageEvent[SmsStatus]:
    """Late proof that an attempt in doubt was not accepted."""
    return attempt_status(message, status, reference=reference, **changes)


def receipt(
    provider_id: str, state: ReceiptState = ReceiptState.DELIVERED, at: float = 2, **changes: Any
) -> Event[GatewayReceipt]:
    """A receipt observed so many seconds after noon, with an event id of its own."""
    fields: dict[str, Any] = {"gateway": GATEWAY, "destination": DESTINATION.lstrip("+"), **changes}
    data = GatewayReceipt(provider_id=provider_id, state=state, observed_at=seconds(at), **fields)
    return Event(
        id=event_id("a receipt", next(_numbers)),
        type=GatewayReceipt.TYPE,
        source="postrider/dispatcher",
        time=data.observed_at,
        subject=f"{data.gateway}/{provider_id}",
        traceparent=TRACE,
        data=data,
    )


async def take(connection: Any, *events: Any) -> list[Match]:
    """Have a batch of these events stored; what is to be published."""
    registrations, doubts, receipts, unasked = sort_out(events, KEY)
    matches: list[Match] = []
    recent = RecentRegistrations()
    if doubts:
        matches += await correlation.doubt(connection, doubts, recent)
    await store.end_doubts(connection, unasked)
    if registrations:
        matches += await correlation.register(connection, registrations, recent)
    if receipts:
        found, unsettled = await correlation.match(connection, receipts, recent)
        matches += found
        if unsettled:
            matches += await correlation.settle(connection, unsettled, recent)
    return matches


def traces(events: Iterable[MessageEvent[SmsStatus]]) -> list[str]:
    """The trace ids, in hex, of what is published."""
    return [(event.traceparent or "")[3:35] for event in events]


def published(records: Sequence[KeyValue]) -> list[MessageEvent[SmsStatus]]:
    return [read_status(value or b"") for _, value in records]


async def many_registrations(pool: Pool) -> None:
    """20,000 of them, one for each second after noon."""
    await pool.execute(
        """
        INSERT INTO provider_ids (gateway, provider_id, reuse, message_id, cycle, leg, leg_at, part, parts, try_number, tenant, kind,
                                  person, registered_at)
        SELECT 'demo', 'many' || n, 0, gen_random_uuid(), 1, 1, at, 1, 1, 1, 'bank', 'client', '17', at
          FROM generate_series(1, 20000) AS n, LATERAL (SELECT $1::timestamptz + n * interval '1 second') AS t (at)""",
        NOON,
    )
