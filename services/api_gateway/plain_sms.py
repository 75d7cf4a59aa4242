"""The body of POST /sms, read fast when it is plain: text, person and priority, nothing out of the ordinary.

Whatever else it is, right or wrong, `SendSms` decides and finds the words. So what is taken here must be a subset of what that takes,
with the same values; the tests hold it to that.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar

import msgspec

from libs.contracts.events import Priority
from libs.contracts.http.requests import MAX_TEXT_CHARACTERS, SendSms
from services.api_gateway.http.calls import parse

PlainText = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
PlainPersonId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class PlainSms(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """A `SendSms` without its rarer fields."""

    message: PlainText
    client_id: PlainPersonId | None = None
    staff_id: PlainPersonId | None = None
    priority: Priority = Priority.NORMAL
    sender_id: ClassVar[str | None] = None
    tags: ClassVar[tuple[str, ...]] = ()
    custom_data: ClassVar[dict[str, Any] | None] = None
    validity_seconds: ClassVar[int | None] = None
    scheduled_at: ClassVar[datetime | None] = None


_decode = msgspec.json.Decoder(PlainSms).decode


def parse_sms(body: bytes) -> PlainSms | SendSms:
    """Raises the problem 400 for a body that `SendSms` refuses."""
    try:
        sms = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return parse(SendSms, body)
    return sms if is_plainly_right(sms.message, sms.client_id, sms.staff_id) else parse(SendSms, body)


def is_plainly_right(message: str, client_id: str | None, staff_id: str | None) -> bool:
    """Whether `SendSms` would take this text and person, of the right lengths, as they are; if not, it has the last word."""
    person = staff_id if client_id is None else client_id if staff_id is None else None
    return person is not None and person.isprintable() and "\0" not in message and not message.isspace()
