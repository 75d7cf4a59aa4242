"""Messages' lives as events, made from a seed: what the path may publish about one message, in the order in which it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple
from uuid import UUID

from libs.contracts.events import (
    CommandKind,
    Encoding,
    Leg,
    Message,
    MessageEvent,
    PersonKind,
    Priority,
    Reason,
    Recipient,
    SmsCommand,
    SmsDeferred,
    SmsDispatch,
    SmsRequested,
    SmsReturned,
    SmsStatus,
    event_id,
    person_key,
    type_name,
)
from libs.contracts.fold import AnyMessageEvent
from libs.contracts.statuses import Status
from libs.contracts.topics import COMMANDS, STATUS, deferred, dispatch, requested, returned

TENANT = "bank"
TEXT = "Your appointment is on Monday at nine"
PHONE = "+4915112345678"
NAME = "Ann Example"
SENDER = "POSTRIDER"
START = datetime(2026, 11, 20, 8, tzinfo=UTC)


class Told(NamedTuple):
    """One event, with the topic and the key under which it is published."""

    topic: str
    key: bytes
    event: AnyMessageEvent


def message_id(at: datetime, tail: int) -> UUID:
    """A UUIDv7 of this time, the same for the same tail."""
    milliseconds = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | tail & ((1 << 62) - 1))


class Story:
    """Tells of one message. Every event is a second later than the one before."""

    def __init__(
        self,
        number: int,
        *,
        tenant: str = TENANT,
        person: str = "client-1",
        kind: PersonKind = PersonKind.CLIENT,
        at: datetime = START,
        priority: Priority = Priority.NORMAL,
        tags: tuple[str, ...] = ("reminder",),
        gateway: str = "demo",
        phone: str = PHONE,
        batch: UUID | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.id = message_id(at, number)
        self.now = at
        self.gateway = gateway
        self.phone = phone
        self.leg = self.first_leg = Leg(1, 1, at)
        self.refused = (0, 0)
        self.message = Message(
            tenant=tenant,
            recipient=Recipient(kind, person),
            number=number,
            text=TEXT,
            accepted_at=at,
            valid_until=at + timedelta(days=2),
            priority=priority,
            tags=tags,
            batch_id=batch,
            batch_size=batch_size,
        )

    def requested(self) -> Told:
        data = SmsRequested(message=self.message, leg=self.leg, requested_by="core", custom_data={"loan": [1, "a"]})
        return self._told(requested(self.message.priority).name, data)

    def resent(self, validity: timedelta) -> Told:
        """The next cycle, as a person asked for it."""
        self.leg = Leg(self.leg.cycle + 1, 1, self._later())
        message = replace(self.message, valid_until=self.now + validity, scheduled_at=None)
        data = SmsRequested(message=message, leg=self.leg, requested_by="desk", custom_data={"loan": [1, "a"]})
        return self._told(requested(self.message.priority).name, data)

    def dispatched(self, segments: int = 1) -> Told:
        data = SmsDispatch(
            message=self.message,
            leg=self.leg,
            gateway=self.gateway,
            phone=self.phone,
            person_name=NAME,
            source_address=SENDER,
            encoding=Encoding.GSM7,
            segments=segments,
            decided_at=self._later(),
        )
        return self._told(dispatch(self.gateway, self.message.priority).name, data)

    def returned(self, refused_part: int = 0, refused_try: int = 0) -> Told:
        self.leg = Leg(self.leg.cycle, self.leg.leg + 1, self._later())
        data = SmsReturned(
            message=self.message,
            leg=self.leg,
            reason=Reason("number-changed", "The number changed meanwhile"),
            refused_part=refused_part,
            refused_try=refused_try,
        )
        return self._told(returned(self.message.priority).name, data)

    def deferred(self, refused_part: int = 0, refused_try: int = 0) -> Told:
        """Until ten seconds later, when `due` follows."""
        deferred_at = self._later()
        self.leg = Leg(self.leg.cycle, self.leg.leg + 1, deferred_at + timedelta(seconds=10))
        self.refused = (refused_part, refused_try)
        data = SmsDeferred(
            message=self.message,
            leg=self.leg,
            due_at=self.leg.leg_at,
            deferred_at=deferred_at,
            reason=Reason("smpp-0x14", "The queue is full") if refused_part else None,
            refused_part=refused_part,
            refused_try=refused_try,
        )
        return self._told(deferred(self.message.priority).name, data)

    def due(self) -> Told:
        self.now = self.leg.leg_at
        part, try_number = self.refused
        data = SmsReturned(
            message=self.message,
            leg=self.leg,
            reason=Reason("due", "Its time has come"),
            refused_part=part,
            refused_try=try_number,
        )
        return self._told(returned(self.message.priority).name, data)

    def command(self, kind: CommandKind = CommandKind.CANCEL) -> Told:
        data = SmsCommand(
            tenant=self.message.tenant,
            recipient=self.message.recipient,
            kind=kind,
            cycle=self.leg.cycle,
            asked_at=self._later(),
        )
        return self._told(COMMANDS.name, data)

    def status(self, status: Status, part: int = 1, parts: int = 1, try_number: int = 1, reason: str = "") -> Told:
        taken = status in (Status.SUBMITTED, Status.BUFFERED, Status.DELIVERED, Status.UNKNOWN)
        data = SmsStatus(
            tenant=self.message.tenant,
            recipient=self.message.recipient,
            leg=self.leg,
            part=part,
            parts=parts,
            try_number=try_number,
            status=status,
            observed_at=self._later(),
            gateway=self.gateway,
            provider_id=f"{self.message.number:x}-{self.leg.leg}-{part}-{try_number}" if taken and part else None,
            destination=self.phone,
            reason=Reason(reason, f"The carrier said {reason}") if reason else None,
            carrier_time="2611200801" if status is Status.DELIVERED else None,
        )
        return self._told(STATUS.name, data)

    def delivered(self) -> list[Told]:
        """The usual way: four events."""
        return [self.requested(), self.dispatched(), self.status(Status.SUBMITTED), self.status(Status.DELIVERED)]

    def _later(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def _told(
        self, topic: str, data: SmsRequested | SmsReturned | SmsDeferred | SmsDispatch | SmsStatus | SmsCommand
    ) -> Told:
        by_message = isinstance(data, SmsStatus)
        parts = (data.part, data.try_number, data.status) if by_message else ()
        if isinstance(data, SmsCommand):
            parts = (data.kind,)
        event = MessageEvent(
            id=event_id(type_name(type(data)), self.id, self.leg.cycle, self.leg.leg, *parts),
            type=type_name(type(data)),
            source="postrider/tests",
            time=self.now,
            subject=self.id,
            data=data,
            traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" if self.message.number % 2 else None,
        )
        key = str(self.id).encode() if by_message else person_key(self.message.tenant, self.message.recipient)
        return Told(topic, key, event)


def tell(random: Random, number: int) -> list[Told]:
    """One of the ways that a message may go."""
    story = Story(
        number,
        person=f"client-{random.randrange(5)}",
        at=START + timedelta(milliseconds=number),
        priority=random.choice(list(Priority)),
        gateway=random.choice(["demo", "spare"]),
        tags=tuple(random.sample(["a", "b", "c"], random.randrange(3))),
    )
    return list(random.choice(_WAYS)(story))


def _usual(story: Story) -> Iterator[Told]:
    yield from story.delivered()


def _three_parts(story: Story) -> Iterator[Told]:
    yield story.requested()
    yield story.dispatched(segments=3)
    for status in (Status.SUBMITTED, Status.DELIVERED):
        for part in (1, 2, 3):
            yield story.status(status, part, 3)


def _rejected(story: Story) -> Iterator[Told]:
    yield story.requested()
    yield story.status(Status.REJECTED, part=0, try_number=0, reason="no-number")


def _returned(story: Story) -> Iterator[Told]:
    yield story.requested()
    yield story.dispatched()
    yield story.returned(refused_part=1, refused_try=1)
    story.phone = "+4915187654321"
    yield story.dispatched()
    yield story.status(Status.SUBMITTED)
    yield story.status(Status.DELIVERED)


def _throttled(story: Story) -> Iterator[Told]:
    yield story.requested()
    yield story.dispatched()
    yield story.status(Status.REFUSED, try_number=1, reason="throttled")
    yield story.status(Status.SUBMITTED, try_number=2)
    yield story.status(Status.EXPIRED, try_number=2, reason="expired")


def _doubted(story: Story) -> Iterator[Told]:
    yield story.requested()
    yield story.dispatched()
    yield story.status(Status.IN_DOUBT, reason="connection-lost")
    yield story.returned()
    yield story.dispatched()
    yield story.status(Status.SUBMITTED)
    yield story.status(Status.FAILED, reason="absent")


def _scheduled_and_cancelled(story: Story) -> Iterator[Told]:
    yield story.requested()
    yield story.deferred()
    yield story.command()
    yield story.status(Status.CANCELLED, part=0, try_number=0, reason="cancel-asked")


def _deferred(story: Story) -> Iterator[Told]:
    yield story.requested()
    yield story.dispatched()
    yield story.deferred(refused_part=1, refused_try=2)
    yield story.due()
    story.phone = "+4915187654321"
    yield story.dispatched()
    yield story.command(CommandKind.RETURN)
    yield story.status(Status.SUBMITTED)
    yield story.command()


_WAYS = (
    _usual,
    _three_parts,
    _rejected,
    _returned,
    _throttled,
    _doubted,
    _scheduled_and_cancelled,
    _deferred,
)
