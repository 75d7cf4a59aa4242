"""What goes out over the native HTTP API: the models that write it and that OpenAPI is made from."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field, JsonValue

from libs.contracts.events import Encoding, GatewayId, Priority, Reason
from libs.contracts.http.model import ApiModel
from libs.contracts.http.requests import Outcome
from libs.contracts.statuses import Status


class Accepted(ApiModel):
    """202: the message is durable. What becomes of it is at `location`."""

    id: UUID
    number: int
    status: Status
    location: str


class Cancelling(ApiModel):
    """202: the wish is durable. Whether it came in time is told by the message's status and history, at `location`."""

    id: UUID
    status: Literal["cancelling"]
    location: str


class OutcomeSaid(ApiModel):
    """202: the word is durable; the message's status follows it, at `location`."""

    id: UUID
    status: Outcome
    location: str


class FieldProblem(ApiModel):
    """One wrong field and why."""

    field: str
    reason: str


class BulkAccepted(ApiModel):
    """A message of the batch that is durable. `index` counts from 0."""

    index: int
    id: UUID
    number: int
    status: Status


class BulkRefused(ApiModel):
    """A message of the batch that was refused, or that is not known to be durable, and why."""

    index: int
    errors: tuple[FieldProblem, ...]


class Bulk(ApiModel):
    """202: every message with an id is durable. `location` counts them by status.

    Of more than 1,000 messages this is written while they are made durable, in the chunked coding: what is there of it holds.
    """

    batch_id: UUID
    location: str
    items: tuple[BulkAccepted | BulkRefused, ...]
    accepted: int
    rejected: int
    unacknowledged: int = Field(
        description="messages with an error that could not be made durable in time after the answer had begun, though they may be; "
        "repeated with the same Idempotency-Key, the call accepts them, and the others are not sent twice"
    )


class Batch(ApiModel):
    """GET /batches/{id}: the accepted messages of a batch. `total` counts them all, `byStatus` those that the outbox knows so far."""

    id: UUID
    total: int = Field(
        description="accepted in the call; what `byStatus` lacks of it is still on its way to the outbox"
    )
    by_status: dict[Status, int]
    location: str


class Person(ApiModel):
    """A client or staff member. `phone` is in E.164; `phoneProblem` says why it can't be used."""

    id: str
    phone: str | None
    phone_problem: str | None = None
    name: str | None
    changed_at: datetime


class Transition(ApiModel):
    """One event in the history of a message. `part` 0 is the message itself."""

    status: Status
    at: datetime
    topic: str
    cycle: int
    leg: int
    part: int
    try_number: int
    gateway: str | None = None
    provider_id: str | None = None
    reason: Reason | None = None
    carrier_time: str | None = None
    phone: str | None = Field(
        default=None, description="of `queued`: the number that this leg goes to, as looked up for it"
    )
    sender_id: str | None = Field(default=None, description="of `queued`: the sender that this leg goes out under")


class Part(ApiModel):
    """One segment of the message as the carrier knows it."""

    part: int
    status: Status
    provider_id: str | None
    try_number: int


class Sms(ApiModel):
    """A message as the outbox shows it. `phone` is the number it was sent to, as of the moment of sending: that of the leg shown."""

    id: UUID
    number: int | None
    client_id: str | None
    staff_id: str | None
    message: str | None
    phone: str | None
    person_name: str | None
    status: Status
    status_at: datetime
    reason: Reason | None
    priority: Priority | None
    sender_id: str | None = Field(description="as asked for; the history says under which it went out")
    tags: tuple[str, ...]
    custom_data: dict[str, JsonValue] | None
    gateway: str | None
    encoding: Encoding | None
    segments: int
    accepted_at: datetime
    valid_until: datetime | None
    submitted_at: datetime | None
    delivered_at: datetime | None
    cycle: int = Field(description="1 at first, one more for each resend")
    leg: int = Field(description="1 at first in a cycle, one more each time that the number is looked up anew")
    possible_double: bool = Field(
        description="more than one attempt may have reached the phone: after a resend of what the carrier had taken, or of a doubt"
    )
    requested_by: str | None
    parts: tuple[Part, ...]
    scheduled_at: datetime | None = Field(None, description="when it will be due, while it waits for that")
    cancel_asked_at: datetime | None = Field(None, description="when the cancellation of this cycle was asked for")
    batch_id: UUID | None = Field(None, description="the bulk call that it came with")


class SmsWithHistory(Sms):
    """GET /sms/{id}: the message and every transition, oldest first."""

    history: tuple[Transition, ...]
    validity_seconds: int | None = Field(
        None, description="how long it may be sent in each cycle, from its acceptance, schedule or resend on"
    )


class SmsPage(ApiModel):
    """GET /sms: newest first. `nextCursor` is given back as `cursor` for the next page; null on the last."""

    items: tuple[Sms, ...]
    next_cursor: str | None


class InboundPart(ApiModel):
    """One part of a message from a handset, as it came: SMPP's fields, the content in hex with its user data header."""

    part: int
    received_at: datetime
    source: str
    data_coding: int
    esm_class: int
    content_hex: str
    sar_reference: int | None
    sar_total: int | None
    sar_part: int | None


class Inbound(ApiModel):
    """A message from a handset, its parts joined. `text` is null until all `total` parts are here, and for what is no text."""

    id: UUID
    gateway: GatewayId
    source: str = Field(description="the sender: in E.164 where it is a phone number, else as it came")
    destination: str
    received_at: datetime
    text: str | None
    complete: bool
    total: int
    parts: tuple[InboundPart, ...] = Field(description="by number; one that came twice is listed twice")


class InboundPage(ApiModel):
    """GET /inbound: newest first. `nextCursor` is given back as `cursor` for the next page; null on the last."""

    items: tuple[Inbound, ...]
    next_cursor: str | None


class Problem(ApiModel):
    """application/problem+json (RFC 9457), with the fields that are wrong."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    errors: tuple[FieldProblem, ...] = ()
