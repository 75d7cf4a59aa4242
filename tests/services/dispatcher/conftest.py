"""A ledger on a fresh database, and dispatch events to claim."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

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
from libs.storage.database import Pool, open_database
from services.dispatcher.attempts import LegState
from services.dispatcher.lease import Lease
from services.dispatcher.ledger import PARTITIONED, Ledger
from services.dispatcher.main import MIGRATIONS

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
                recipient=Recipient(PersonKind.CLIENT, "1"),
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


def leg_of(event: MessageEvent[SmsDispatch]) -> LegState:
    return LegState(event, [])


@pytest.fixture(scope="package")
async def database(postgres: Callable[[], Awaitable[str]]) -> AsyncIterator[Pool]:
    opened = await open_database(await postgres(), "dispatch", MIGRATIONS, 8, PARTITIONED)
    yield opened
    await opened.close()


@pytest.fixture
async def pool(database: Pool) -> Pool:
    await database.execute("TRUNCATE instances, bind_slots, rates, attempts, marks, late_events")
    return database


@pytest.fixture
async def lease(pool: Pool) -> Lease:
    made = Lease(pool, GATEWAY, 5)
    await made.register()
    return made


@pytest.fixture
def ledger(pool: Pool, lease: Lease) -> Ledger:
    return Ledger(pool, GATEWAY, lease.instance, interval_us=0)
