"""The body of POST /sms/bulk: its items as they stand, each to be read by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from msgspec.structs import astuple

from libs.contracts.http.requests import MAX_BULK_MESSAGES
from libs.service_kit.problems import ProblemError, bad_field
from services.api_gateway.plain_sms import PlainPersonId, PlainText, is_plainly_right

ABSENT = msgspec.Raw()

_Items = msgspec.defstruct(
    "_Items", [(f"item_{n}", msgspec.Raw, ABSENT) for n in range(MAX_BULK_MESSAGES + 1)], array_like=True
)
"""A list of items up to the first that is one too many. What follows is skipped: of 16 MiB a list could make 8 million objects."""
_Body = msgspec.defstruct("_Body", [("messages", _Items)], forbid_unknown_fields=True)


class Item(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Text and person, read; the options as they stand, since in a batch most have the same."""

    message: PlainText
    client_id: PlainPersonId | None = None
    staff_id: PlainPersonId | None = None
    priority: msgspec.Raw = ABSENT
    sender_id: msgspec.Raw = ABSENT
    tags: msgspec.Raw = ABSENT
    custom_data: msgspec.Raw = ABSENT
    validity_seconds: msgspec.Raw = ABSENT
    scheduled_at: msgspec.Raw = ABSENT

    @property
    def options(self) -> tuple[bytes, ...]:
        """Priority and all other options, as they stand: to compare items by."""
        rest = (self.sender_id, self.tags, self.custom_data, self.validity_seconds, self.scheduled_at)
        return (bytes(self.priority), *map(bytes, rest))


_read = msgspec.json.Decoder(_Body).decode
_read_item = msgspec.json.Decoder(Item).decode
_unknown_field = re.compile(r"unknown field `(.*)`", re.DOTALL)


def read_items(body: bytes) -> Sequence[msgspec.Raw]:
    """The items. Raises the problem 400 unless they are a list of 1 to 10,000 in JSON."""
    try:
        items = _items(body)
    except msgspec.ValidationError as error:
        words = str(error)
        if unknown := _unknown_field.search(words):
            raise bad_field(unknown[1], "is not known here") from None
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


def _items(body: bytes) -> Sequence[msgspec.Raw]:
    try:
        return _split(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # Half a surrogate pair (a text cut off by UTF-16 units) stops msgspec, though JSON's grammar has it. It is to fail its item alone,
        # so the items are found in a copy without: each \ud... is there an \ue..., which is no surrogate and as long.
        spared = body.replace(rb"\ud", rb"\ue").replace(rb"\uD", rb"\uE")
        items = _split(spared)
        return items if len(items) > MAX_BULK_MESSAGES else _cut(body, spared, items)


def _split(body: bytes) -> Sequence[msgspec.Raw]:
    (messages,) = astuple(_read(body))
    items = astuple(messages)
    return items if items[-1] is not ABSENT else items[: items.index(ABSENT)]


def _cut(body: bytes, spared: bytes, items: Sequence[msgspec.Raw]) -> Sequence[msgspec.Raw]:
    """What stands in the body where the items stand in `spared`, which is as long. Found from the end on: since there is no field but
    `messages`, the last `]` ends the list, and between its items are commas and white space alone (of a list that is too long there would
    be more, and to search that may take hours)."""
    end = spared.rindex(b"]")
    found: list[msgspec.Raw] = []
    for item in reversed(items):
        start = spared.rindex(bytes(item), 0, end)
        found.append(msgspec.Raw(body[start : start + len(item)]))
        end = start
    return found[::-1]


def read_item(body: msgspec.Raw) -> Item | None:
    """The item, if its text and person are plainly right: what else there is to say of them, `SendSms` knows."""
    try:
        item = _read_item(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return item if is_plainly_right(item.message, item.client_id, item.staff_id) else None
