"""What is said of a request that a model refuses: the same words behind the API as at its door."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from libs.contracts.http.answers import FieldProblem

CONTENT_TYPE = "application/problem+json"
"""RFC 9457."""
MAX_FIELDS = 20
MAX_FIELD_NAME = 100
"""Characters."""

_WORDS = {
    "missing": "is needed",
    "extra_forbidden": "is not known here",
    "string_pattern_mismatch": "has characters or a form that are not allowed",
    "model_type": "must be a JSON object",
    "uuid_parsing": "must be a UUID",
}


def reason(error: ErrorDetails) -> str:
    """Why a value was refused, without the value."""
    return _WORDS.get(error["type"]) or error["msg"].removeprefix("Value error, ")


def fields_of(whole: str, error: ValidationError) -> list[FieldProblem]:
    """The first 20 errors by the field's name on the wire; `whole` is named where no one field is to blame."""
    return [
        FieldProblem(field=(".".join(map(str, e["loc"])) or whole)[:MAX_FIELD_NAME], reason=reason(e))
        for e in error.errors(include_input=False, include_url=False)[:MAX_FIELDS]
    ]


def wrong(whole: str, errors: Sequence[FieldProblem]) -> str:
    """What is wrong with a query or a body, for people."""
    words = "; ".join(f"{e.field}: {e.reason}" for e in errors[:3])
    more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
    return f"wrong {whole}: {words}{more}"
