"""What goes in and out over the native HTTP API: the models that validate it and that OpenAPI is made from."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)
from pydantic.alias_generators import to_camel

from libs.contracts.events import Encoding, GatewayId, PersonKind, Priority, Reason
from libs.contracts.statuses import Status


class ApiModel(BaseModel):
    """camelCase on the wire; an unknown field is an error, so that a misspelt option is never silently ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


def _decimal_text(value: Any) -> Any:
    """A JSON integer is taken as its decimal text: upstream systems number their clients."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def _without_nul(text: str) -> str:
    """Storage takes every character but this one."""
    if "\0" in text:
        raise ValueError("the character U+0000 is not allowed")
    return text


def _storable(data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """JSON as it can be kept: its parsers let through NaN and numbers that become infinite, and storage takes no U+0000."""
    left: list[JsonValue] = [data]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str):
            _without_nul(value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number is not finite")
    return data


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _rfc3339(value: Any) -> Any:
    """The model's own parser would also take seconds since 1970, and other forms of ISO 8601."""
    if value is None or isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("must be RFC 3339 with a time zone, as in 2026-01-31T08:00:00Z")
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("there is no such date or time") from None


_ONE_LINE = r"^[^\x00-\x1f\x7f]+$"

PersonId = Annotated[
    str,
    BeforeValidator(_decimal_text, json_schema_input_type=str | int),
    Field(min_length=1, max_length=64, pattern=_ONE_LINE),
]
Tag = Annotated[str, Field(min_length=1, max_length=64, pattern=_ONE_LINE)]
Text = Annotated[str, AfterValidator(_without_nul)]
Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339, json_schema_input_type=AwareDatetime)]

MAX_VALIDITY_SECONDS = 7 * 24 * 3600
MAX_SEGMENTS = 10
MAX_TEXT_CHARACTERS = 1520
"""Ten segments of GSM text at most; the segment count itself is checked apart."""
MAX_BULK_MESSAGES = 10_000


class SendSms(ApiModel):
    """POST /sms: one message to one person, named by exactly one of `clientId` and `staffId`."""

    message: Text = Field(min_length=1, max_length=MAX_TEXT_CHARACTERS, description="the text; 10 segments at most")
    client_id: PersonId | None = None
    staff_id: PersonId | None = None
    priority: Priority = Priority.NORMAL
    sender_id: str | None = Field(
        None, min_length=1, max_length=15, pattern=r"^(\+?[0-9]{1,15}|[A-Za-z0-9 ._&-]{1,11})$"
    )
    tags: tuple[Tag, ...] = Field((), max_length=20)
    custom_data: Annotated[dict[str, JsonValue], AfterValidator(_storable)] | None = None
    validity_seconds: int | None = Field(
        None, ge=60, le=MAX_VALIDITY_SECONDS, description="how long it may be sent, from its acceptance or schedule on"
    )
    scheduled_at: Moment | None = Field(
        None, description="not to be sent before, RFC 3339 with zone: in the future, at most a year ahead"
    )

    @model_validator(mode="after")
    def _one_person(self) -> SendSms:
        if (self.client_id is None) == (self.staff_id is None):
            raise ValueError("exactly one of clientId and staffId is needed")
        return self


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


class SendBulk(ApiModel):
    """POST /sms/bulk: messages, each as for POST /sms, and each taken or refused by itself."""

    messages: tuple[SendSms, ...] = Field(min_length=1, max_length=MAX_BULK_MESSAGES)


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
    """GET /batches/{id}: the accepted messages of a batch. `total` counts them all, `by_status` those that the outbox knows so far."""

    id: UUID
    total: int = Field(
        description="accepted in the call; what `byStatus` lacks of it is still on its way to the outbox"
    )
    by_status: dict[Status, int]
    location: str


class PersonIn(ApiModel):
    """PUT /clients/{id} and /staff/{id}: all that is known of the person, replacing what was."""

    phone: Text | None = Field(None, max_length=40, description="international, or national in the configured region")
    name: Text | None = Field(None, max_length=200)


class Person(ApiModel):
    """A client or staff member. `phone` is in E.164; `phone_problem` says why it can't be used."""

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


class Part(ApiModel):
    """One segment of the message as the carrier knows it."""

    part: int
    status: Status
    provider_id: str | None
    try_number: int


class Sms(ApiModel):
    """A message as the outbox shows it. `phone` is the number it was sent to, as of the moment of sending."""

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
    sender_id: str | None
    tags: tuple[str, ...]
    custom_data: dict[str, JsonValue] | None
    gateway: str | None
    encoding: Encoding | None
    segments: int
    accepted_at: datetime
    valid_until: datetime | None
    submitted_at: datetime | None
    delivered_at: datetime | None
    cycle: int
    leg: int
    possible_double: bool
    requested_by: str | None
    parts: tuple[Part, ...]
    scheduled_at: datetime | None = Field(None, description="when it will be due, while it waits for that")
    cancel_asked_at: datetime | None = Field(None, description="when the cancellation of this cycle was asked for")
    batch_id: UUID | None = Field(None, description="the bulk call that it came with")


class SmsWithHistory(Sms):
    """GET /sms/{id}: the message and every transition, oldest first."""

    history: tuple[Transition, ...]


class SmsPage(ApiModel):
    """GET /sms: newest first. `next_cursor` is given back as `cursor` for the next page; null on the last."""

    items: tuple[Sms, ...]
    next_cursor: str | None


class SmsQuery(ApiModel):
    """The filters of GET /sms; all that are given must hold."""

    client_id: PersonId | None = None
    staff_id: PersonId | None = None
    status: Status | None = None
    from_: datetime | None = Field(None, alias="from", description="accepted at or after, RFC 3339 with zone")
    to: datetime | None = Field(None, description="accepted before, RFC 3339 with zone")
    gateway: GatewayId | None = None
    number: Text | None = Field(None, max_length=20, description="the phone number it was sent to, E.164")
    tag: Tag | None = None
    batch_id: UUID | None = None
    limit: int = Field(50, ge=1, le=500)
    cursor: Text | None = Field(None, max_length=200)

    @model_validator(mode="after")
    def _check(self) -> SmsQuery:
        if self.client_id is not None and self.staff_id is not None:
            raise ValueError("only one of clientId and staffId can be asked for")
        for moment in (self.from_, self.to):
            if moment is not None and moment.tzinfo is None:
                raise ValueError("from and to need a time zone, as in 2026-01-31T08:00:00Z")
        return self


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
    """GET /inbound: newest first. `next_cursor` is given back as `cursor` for the next page; null on the last."""

    items: tuple[Inbound, ...]
    next_cursor: str | None


def _with_zone(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("needs a time zone, as in 2026-01-31T08:00:00Z")
    return moment


class InboundQuery(ApiModel):
    """The filters of GET /inbound; all that are given must hold."""

    gateway: GatewayId | None = None
    number: Text | None = Field(None, min_length=1, max_length=21, description="the sender, as `source` shows it")
    from_: Annotated[datetime, AfterValidator(_with_zone)] | None = Field(
        None, alias="from", description="received at or after, RFC 3339 with zone"
    )
    to: Annotated[datetime, AfterValidator(_with_zone)] | None = Field(
        None, description="received before, RFC 3339 with zone"
    )
    limit: int = Field(50, ge=1, le=500)
    cursor: Text | None = Field(None, max_length=200)


class Problem(ApiModel):
    """application/problem+json (RFC 9457), with the fields that are wrong."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    errors: tuple[FieldProblem, ...] = ()


PERSON_PATHS: dict[PersonKind, str] = {PersonKind.CLIENT: "clients", PersonKind.STAFF: "staff"}
"""The path under which each kind of person is kept, at the API gateway and at the resolver alike."""
