"""What comes in over the native HTTP API: the models that validate it and that OpenAPI is made from."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    model_validator,
)
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function, nullable_schema

from libs.contracts.events import GatewayId, PersonKind, Priority
from libs.contracts.http.model import ApiModel
from libs.contracts.upstream import or_number

MAX_VALIDITY_SECONDS = 7 * 24 * 3600
MAX_SEGMENTS = 10
MAX_TEXT_CHARACTERS = 1520
"""Ten segments of GSM text at most; the segment count itself is checked apart."""
MAX_BULK_MESSAGES = 10_000
MAX_NAME_CHARACTERS = 200
"""Of a person's."""
MAX_PHONE_CHARACTERS = 40
"""Of a phone number, however it is spaced out."""
MAX_NESTING = 32
"""Objects and lists within each other, `customData` itself included."""

PERSON_PATHS: dict[PersonKind, str] = {PersonKind.CLIENT: "clients", PersonKind.STAFF: "staff"}
"""The path under which each kind of person is kept, at the API gateway and at the resolver alike."""


def _without_nul(text: str) -> str:
    """Storage takes every character but this one."""
    if "\0" in text:
        raise ValueError("the character U+0000 is not allowed")
    return text


def _with_plus(number: str) -> str:
    """An unescaped "+" of a query arrives as a space."""
    return "+" + number[1:] if number.startswith(" ") else number


def _not_blank(text: str) -> str:
    """Nobody means to send white space alone, and a handset shows nothing of it."""
    if text.isspace():
        raise ValueError("is blank")
    return text


def _storable(data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """JSON as it can be kept: its parsers let through NaN, numbers that become infinite and integers of any length, and storage takes no
    U+0000. Nested no deeper than the parsers of those who read it in an answer can follow."""
    level: list[JsonValue] = [data]
    depth = 0
    while level:
        depth += 1
        inner: list[JsonValue] = []
        for value in level:
            if isinstance(value, dict):
                inner += value
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str):
                _without_nul(value)
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError("a number is not finite")
            elif isinstance(value, int) and not -(2**63) <= value < 2**64:
                raise ValueError("an integer is beyond 64 bits; a string keeps all its digits")
        if depth == MAX_NESTING and any(isinstance(value, dict | list) for value in inner):
            raise ValueError(f"is nested more than {MAX_NESTING} levels deep")
        level = inner
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


ONE_LINE = r"^[^\x00-\x1f\x7f]+$"

_Label = Annotated[str, Field(min_length=1, max_length=64, pattern=ONE_LINE)]
PersonId = Annotated[_Label, or_number(_Label)]
Tag = _Label
_NO_NUL = AfterValidator(_without_nul)
"""Put after the length constraints, or pydantic words their errors for lists."""
_AskedNumber = Annotated[str, Field(min_length=1, max_length=MAX_PHONE_CHARACTERS), _NO_NUL, AfterValidator(_with_plus)]
Cursor = Annotated[str, Field(max_length=200), _NO_NUL]
Outcome = Literal["delivered", "failed"]
ShownStatus = Literal[
    "accepted",
    "scheduled",
    "queued",
    "in_doubt",
    "submitted",
    "buffered",
    "unknown",
    "failed",
    "expired",
    "rejected",
    "cancelled",
    "delivered",
]
"""What a message may be: every `Status` but `refused`, which stands in its history alone."""
Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339, json_schema_input_type=AwareDatetime)]


class _OrNull:
    """For an option that has a default: null is the same as leaving it out."""

    def __init__(self, default: object) -> None:
        self._default = default

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # A BeforeValidator would hand on Python's lists and strings, which strictly are no tuples and enumerations.
        return no_info_after_validator_function(self._or_default, nullable_schema(handler(source)))

    def _or_default(self, value: object) -> object:
        return self._default if value is None else value


def _given(person_id: str) -> dict[str, Any]:
    """The JSON Schema of an object in which this id is more than null."""
    return {"required": [person_id], "properties": {person_id: {"type": ["string", "integer"]}}}


class SendSms(ApiModel):
    """POST /sms: one message to one person, named by exactly one of `clientId` and `staffId`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_given("clientId"), _given("staffId")]})

    message: Annotated[
        str, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS), _NO_NUL, AfterValidator(_not_blank)
    ] = Field(description="the text, not blank; 10 segments at most", json_schema_extra={"pattern": r"\S"})
    client_id: PersonId | None = None
    staff_id: PersonId | None = None
    priority: Annotated[Priority, _OrNull(Priority.NORMAL)] = Priority.NORMAL
    sender_id: str | None = Field(
        None, min_length=1, max_length=16, pattern=r"^(\+?[0-9]{1,15}|[A-Za-z0-9 ._&-]{1,11})$"
    )
    tags: Annotated[tuple[Tag, ...], Field(max_length=20), _OrNull(())] = ()
    custom_data: Annotated[dict[str, JsonValue], AfterValidator(_storable)] | None = Field(
        None, description=f"shown with the message; nested {MAX_NESTING} levels at most"
    )
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


class SendBulk(ApiModel):
    """POST /sms/bulk: messages, each as for POST /sms, and each taken or refused by itself."""

    messages: tuple[SendSms, ...] = Field(min_length=1, max_length=MAX_BULK_MESSAGES)


class SayOutcome(ApiModel):
    """POST /sms/{id}/outcome: what the carrier says, when asked, of a message that is in doubt or was never reported."""

    status: Outcome = Field(
        description="`delivered`, or `failed`: the carrier has not sent it, so that it may be sent again"
    )


class PersonIn(ApiModel):
    """PUT /clients/{id} and /staff/{id}: all that is known of the person, replacing what was."""

    phone: Annotated[str, Field(max_length=MAX_PHONE_CHARACTERS), _NO_NUL] | None = Field(
        None,
        description="international, or national in the configured region; one that its country's numbering plan has",
    )
    name: Annotated[str, Field(max_length=MAX_NAME_CHARACTERS), _NO_NUL] | None = None


UNFILTERED = {"limit", "cursor"}
"""Parameters that leave nothing out: a query with no others takes long only where PostgreSQL itself is slow."""


class SmsQuery(ApiModel):
    """The filters of GET /sms; all that are given must hold."""

    client_id: PersonId | None = None
    staff_id: PersonId | None = None
    status: ShownStatus | None = None
    from_: Moment | None = Field(None, alias="from", description="accepted at or after, RFC 3339 with zone")
    to: Moment | None = Field(None, description="accepted before, RFC 3339 with zone")
    gateway: GatewayId | None = None
    number: _AskedNumber | None = Field(
        None,
        description="a phone number that it was to be sent to, before or now: international, or national in the configured region",
    )
    tag: Tag | None = None
    batch_id: UUID | None = None
    limit: int = Field(50, ge=1, le=500)
    cursor: Cursor | None = None

    @model_validator(mode="after")
    def _one_person(self) -> SmsQuery:
        if self.client_id is not None and self.staff_id is not None:
            raise ValueError("only one of clientId and staffId can be asked for")
        return self


class InboundQuery(ApiModel):
    """The filters of GET /inbound; all that are given must hold."""

    gateway: GatewayId | None = None
    number: _AskedNumber | None = Field(
        None, description="the sender: as `source` shows it, or a phone number in another form"
    )
    from_: Moment | None = Field(None, alias="from", description="received at or after, RFC 3339 with zone")
    to: Moment | None = Field(None, description="received before, RFC 3339 with zone")
    limit: int = Field(50, ge=1, le=500)
    cursor: Cursor | None = None
