"""The body of POST /sms/bulk: its items as they stand, each to be read by itself, and what is said of one that is wrong."""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec

from libs.contracts.http import MAX_BULK_MESSAGES, FieldProblem
from services.api_gateway.problems import MAX_FIELD_NAME, ProblemError, bad_field


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    messages: list[msgspec.Raw]


_read = msgspec.json.Decoder(_Body).decode
_unknown_field = re.compile(r"unknown field `(.*)`", re.DOTALL)
_WHOLE = "body"


def read_items(body: bytes) -> list[msgspec.Raw]:
    """The items. Raises the problem 400 unless they are a list of 1 to 10,000 in JSON."""
    try:
        items = _read(body).messages
    except msgspec.ValidationError as error:
        words = str(error)
        if unknown := _unknown_field.search(words):
            raise bad_field(unknown[1][:MAX_FIELD_NAME], "is not known here") from None
        if "missing" in words:
            raise bad_field("messages", "is needed") from None
        at_messages = "$.messages" in words
        what = "must be a list" if at_messages else "must be a JSON object"
        raise bad_field("messages" if at_messages else _WHOLE, what) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        words = str(error) if isinstance(error, msgspec.MsgspecError) else "it is not UTF-8, or nested too deeply"
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {words}") from None
    if not 1 <= len(items) <= MAX_BULK_MESSAGES:
        raise bad_field("messages", f"must hold 1 to {MAX_BULK_MESSAGES} messages")
    return items


def item_errors(problem: ProblemError) -> tuple[FieldProblem, ...]:
    """What is wrong with an item; the whole is named where no one field is to blame."""
    return problem.problem.errors or (FieldProblem(field=_WHOLE, reason=problem.problem.detail or ""),)
