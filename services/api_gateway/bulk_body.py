"""The body of POST /sms/bulk: its items as they stand, each to be read by itself."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Annotated, Any

import msgspec

from libs.contracts.events import PersonKind
from libs.contracts.http.requests import MAX_BULK_MESSAGES, MAX_TEXT_CHARACTERS
from services.api_gateway.problems import MAX_FIELD_NAME, ProblemError, bad_field

ABSENT = msgspec.Raw()


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    messages: list[msgspec.Raw]


class Item(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Text and person, read; the options as they stand, since in a batch most have the same."""

    message: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
    client_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    staff_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    priority: msgspec.Raw = ABSENT
    sender_id: msgspec.Raw = ABSENT
    tags: msgspec.Raw = ABSENT
    custom_data: msgspec.Raw = ABSENT
    validity_seconds: msgspec.Raw = ABSENT
    scheduled_at: msgspec.Raw = ABSENT

    @property
    def person(self) -> tuple[PersonKind, str]:
        if self.client_id is not None:
            return PersonKind.CLIENT, self.client_id
        return PersonKind.STAFF, self.staff_id or ""

    @property
    def options(self) -> tuple[bytes, ...]:
        """Two items with the same have the same options."""
        rest = (self.sender_id, self.tags, self.custom_data, self.validity_seconds, self.scheduled_at)
        return (bytes(self.priority), *map(bytes, rest))


_read = msgspec.json.Decoder(_Body).decode
_read_item = msgspec.json.Decoder(Item).decode
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_unknown_field = re.compile(r"unknown field `(.*)`", re.DOTALL)


def read_items(body: bytes) -> list[msgspec.Raw]:
    """The items. Raises the problem 400 unless they are a list of 1 to 10,000 in JSON."""
    try:
        items = _items(body)
    except msgspec.ValidationError as error:
        words = str(error)
        if unknown := _unknown_field.search(words):
            raise bad_field(unknown[1][:MAX_FIELD_NAME], "is not known here") from None
        if "missing" in words:
            raise bad_field("messages", "is needed") from None
        at_messages = "$.messages" in words
        what = "must be a list" if at_messages else "must be a JSON object"
        raise bad_field("messages" if at_messages else "body", what) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        words = str(error) if isinstance(error, msgspec.MsgspecError) else "it is not UTF-8, or nested too deeply"
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {words}") from None
    if not 1 <= len(items) <= MAX_BULK_MESSAGES:
        raise bad_field("messages", f"must hold 1 to {MAX_BULK_MESSAGES} messages")
    return items


def _items(body: bytes) -> list[msgspec.Raw]:
    try:
        return _read(body).messages
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        items = _items_with_surrogates(body) if _SURROGATE.search(body) else None
        if items is None:
            raise
        return items


def _items_with_surrogates(body: bytes) -> list[msgspec.Raw] | None:
    """Half a surrogate pair (a text cut off by UTF-16 units) stops msgspec, though JSON's grammar has it. It is to fail its item alone, so
    such a body is taken apart the slow way. None if something else is wrong."""
    try:
        whole: Any = json.loads(body)
        return [msgspec.Raw(json.dumps(item).encode()) for item in whole["messages"]] if len(whole) == 1 else None
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def read_item(body: msgspec.Raw) -> Item | None:
    """The item, if its text and person are plainly right: what else there is to say of them, `SendSms` knows."""
    try:
        item = _read_item(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    person = item.staff_id if item.client_id is None else item.client_id if item.staff_id is None else None
    return None if person is None or not person.isprintable() or "\0" in item.message else item
