"""The events of the sending path: frozen models that pydantic validates and describes.

They are standard dataclasses, so that the hot path may make and read what stands for them (`libs.bus.quick_events`) instead of keeping
a second definition of each. Consumers ignore fields they do not know; an additive change keeps the version in `TYPE`, a breaking
change is a new type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from hashlib import blake2b
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import Field

from libs.contracts.statuses import Status
from libs.contracts.upstream import JsonMediaType, or_number

SLUG = r"^[a-z0-9-]{1,40}$"
GatewayId = Annotated[str, Field(pattern=SLUG)]
"""A gateway's id is a slug and never changes: it names topics."""

PersonId = Annotated[str, Field(min_length=1, max_length=64)]
E164 = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{4,14}$")]


class PersonKind(StrEnum):
    """Who a message is for. `NUMBER` is the door for keys that may send to any number."""

    CLIENT = "client"
    STAFF = "staff"
    NUMBER = "number"


class Priority(StrEnum):
    NORMAL = "normal"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Recipient:
    """A person, as the upstream system names them; never a bare number, which would show in keys and logs."""

    kind: PersonKind
    id: PersonId


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What was asked for, the same in every leg. `number` is a positive integer below 2^53 for dialects with numeric ids.

    `scheduled_at` is the earliest moment of sending: until then the first leg is deferred. `batch_id` names the bulk call it came with,
    and `batch_size` is how many messages were accepted in that call.
    """

    tenant: str
    recipient: Recipient
    number: int
    text: str
    accepted_at: datetime
    valid_until: datetime
    priority: Priority = Priority.NORMAL
    sender_id: str | None = None
    tags: tuple[str, ...] = ()
    allow_unknown_number: bool = False
    scheduled_at: datetime | None = None
    batch_id: UUID | None = None
    batch_size: int | None = None


@dataclass(frozen=True, slots=True)
class Leg:
    """One way through the system: a new `cycle` for each resend by a person, a new `leg` each time the message comes back."""

    cycle: int
    leg: int
    leg_at: datetime


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: a stable code for programs, words for people. Never holds a number or a text."""

    code: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsRequested:
    """A message was accepted: it is durable from here on."""

    TYPE = "postrider.sms.requested.v1"

    message: Message
    leg: Leg
    requested_by: str
    custom_data: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsReturned:
    """A message came back to the resolver to be thought about again, in the leg that this event opens.

    `refused_part` and `refused_try` name the attempt of the leg before that is proven not accepted, if there was one (0: none).
    """

    TYPE = "postrider.sms.returned.v1"

    message: Message
    leg: Leg
    reason: Reason
    refused_part: int = 0
    refused_try: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsDeferred:
    """A message waits: at `due_at` the leg that this event opens begins, and `SmsReturned` says so. Its `leg_at` is `due_at`.

    `deferred_at` is our clock at the cause. `reason` is None if the message was scheduled; else it was refused for now, and `refused_part`
    and `refused_try` name an attempt of the leg before that is proven not accepted (0: none).
    """

    TYPE = "postrider.sms.deferred.v1"

    message: Message
    leg: Leg
    due_at: datetime
    deferred_at: datetime
    reason: Reason | None = None
    refused_part: int = 0
    refused_try: int = 0


class Encoding(StrEnum):
    GSM7 = "gsm7"
    UCS2 = "ucs2"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsDispatch:
    """Send this message through this gateway: the resolver's decision for one leg. Reads as `queued` in the history."""

    TYPE = "postrider.sms.dispatch.v1"

    message: Message
    leg: Leg
    gateway: GatewayId
    phone: E164
    person_name: str | None
    source_address: str | None
    encoding: Encoding
    segments: int
    decided_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsStatus:
    """What became of a message (`part` 0) or of one attempt of one of its parts.

    `observed_at` is our clock at the cause; `carrier_time` is the carrier's own, as it gave it. `provider_id` is set when the
    carrier took the part and gave it an id; `reference` when a receipt can be known by that alone. `destination` is there for the
    receipts service to compare and is left out of the journal.
    """

    TYPE = "postrider.sms.status.v1"

    tenant: str
    recipient: Recipient
    leg: Leg
    part: int
    parts: int
    try_number: int
    status: Status
    observed_at: datetime
    gateway: GatewayId | None = None
    provider_id: str | None = None
    destination: str | None = None
    reference: int | None = None
    reason: Reason | None = None
    carrier_time: str | None = None


class ReceiptState(StrEnum):
    """message_state of SMPP 3.4 §5.2.28 and the stat words of its appendix B."""

    ENROUTE = "enroute"
    DELIVERED = "delivered"
    EXPIRED = "expired"
    DELETED = "deleted"
    UNDELIVERABLE = "undeliverable"
    ACCEPTED = "accepted"
    UNKNOWN = "unknown"
    REJECTED = "rejected"


LONGEST_PROVIDER_ID = 255
"""More than SMPP 3.4 §5.2.23 allows (64 octets); an index takes no text of any length. Nobody registers or matches a longer one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayReceipt:
    """A delivery receipt as a gateway gave it. `provider_id` is normalised as the gateway is configured, and no longer than 255 characters.

    `word` is the carrier's own for a state that is none of ours, at most 16 letters, digits and underscores; `state` is then `ENROUTE`.
    """

    TYPE = "postrider.gateway.receipt.v1"

    gateway: GatewayId
    provider_id: str
    state: ReceiptState
    destination: str
    observed_at: datetime
    error: str | None = None
    carrier_time: str | None = None
    reference: int | None = None
    word: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsInbound:
    """A mobile-originated message, undecoded: bytes in hex, data coding, and the joining fields as they came."""

    TYPE = "postrider.sms.inbound.v1"

    gateway: GatewayId
    source: str
    destination: str
    data_coding: int
    esm_class: int
    content_hex: str
    observed_at: datetime
    sar_reference: int | None = None
    sar_total: int | None = None
    sar_part: int | None = None


@dataclass(frozen=True, slots=True)
class UpstreamRecipient(Recipient):
    """A person whom the upstream system may know by an integer: its decimal text is the id."""

    id: Annotated[PersonId, or_number(PersonId)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactChanged:
    """A person's contact data as of `changed_at`; an older change than what is stored is ignored. `deleted` leaves a tombstone.

    Of `name` 200 characters are kept.
    """

    TYPE = "postrider.contact.changed.v1"

    tenant: str
    recipient: UpstreamRecipient
    changed_at: datetime
    phone: str | None = None
    name: str | None = None
    deleted: bool = False


class CommandKind(StrEnum):
    """`CANCEL`: don't send it any more. `RETURN`: what is known of the person has changed, so resolve it anew."""

    CANCEL = "cancel"
    RETURN = "return"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsCommand:
    """What is asked about a message that is on its way. It names its cycle, and holds for what was decided before `asked_at`."""

    TYPE = "postrider.sms.command.v1"

    tenant: str
    recipient: Recipient
    kind: CommandKind
    cycle: int
    asked_at: datetime


D = TypeVar("D")


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageEvent(Generic[D]):
    """CloudEvents 1.0, structured mode, about one message: `subject` is the message id (UUIDv7)."""

    id: str
    type: str
    source: str
    time: datetime
    subject: UUID
    data: D
    traceparent: str | None = None
    specversion: Literal["1.0"] = "1.0"
    datacontenttype: Literal["application/json"] = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Generic[D]):
    """CloudEvents 1.0, structured mode, about anything else: `subject` names it (`client/17`). Upstream systems may leave out what
    CloudEvents has as optional."""

    id: str
    type: str
    source: str
    time: datetime | None = None
    subject: str | None = None
    data: D
    traceparent: str | None = None
    specversion: Literal["1.0"] = "1.0"
    datacontenttype: JsonMediaType | None = "application/json"


def event_id(*parts: object) -> str:
    """The id of an event from what makes it that event: repeats of one step get one id, so they are recognised everywhere."""
    text = ("%s|" * len(parts) % parts)[:-1]  # half the time of a join
    return blake2b(text.encode(), digest_size=16).hexdigest()


def person_key(tenant: str, recipient: Recipient) -> bytes:
    """The Kafka key of everything addressed to one person."""
    return f"{tenant}/{recipient.kind}/{recipient.id}".encode()


def receipt_key(gateway: str, provider_id: str) -> bytes:
    """The Kafka key of the receipts for one id that a gateway gave; normalised, as in `GatewayReceipt`."""
    return f"{gateway}/{provider_id}".encode()


def type_name(data: type) -> str:
    """The CloudEvents type of a data class, with its version."""
    name: str = getattr(data, "TYPE")  # noqa: B009 - every data class above has it
    return name


_ABOUT_NO_MESSAGE = (GatewayReceipt, SmsInbound, ContactChanged)

EVENT_TYPES: tuple[type, ...] = (
    SmsRequested,
    SmsReturned,
    SmsDeferred,
    SmsDispatch,
    SmsStatus,
    SmsCommand,
    *_ABOUT_NO_MESSAGE,
)
"""The data class of every event."""


@cache
def event_class(data: type) -> Any:
    """The whole event that has this data, with its envelope, as pydantic and the bus's codec read it."""
    envelope: Any = Event if data in _ABOUT_NO_MESSAGE else MessageEvent
    return envelope[data]
