"""What the gateway has to say of problems beside `libs.service_kit.problems`, and how it answers them."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

from libs.contracts.http.answers import FieldProblem
from libs.contracts.http.problems import CONTENT_TYPE, MAX_FIELD_NAME
from libs.service_kit import problems
from libs.service_kit.problems import ProblemError, bad_fields, invalid
from services.api_gateway.http.responses import Response


def unavailable(detail: str, retry_after: int = 2) -> ProblemError:
    """The shared 503, but for what the gateway waits for: that is seldom back within a second."""
    return problems.unavailable(detail, retry_after)


def invalid_body(error: ValidationError, body: bytes) -> ProblemError:
    """400 for a body that the model refuses, or that is no JSON."""
    first = error.errors(include_input=False)[0]
    if first["type"] != "json_invalid":
        return invalid("body", error)
    if surrogates := _lone_surrogates(body):
        words = "holds half of a surrogate pair, which is no character"
        return bad_fields("body", *(FieldProblem(field=field, reason=words) for field in surrogates))
    return ProblemError(HTTPStatus.BAD_REQUEST, first["msg"])  # says line and column, and quotes nothing


def problem_response(error: ProblemError) -> Response:
    """The problem as it goes out."""
    body = error.problem.model_dump_json(by_alias=True).encode()
    return Response(error.problem.status, body, CONTENT_TYPE, error.headers)


def _lone_surrogates(body: bytes) -> list[str]:
    """The fields whose strings hold a lone surrogate (`"\\ud83d"`): the strict parser stops at it without saying where."""
    try:
        whole: Any = json.loads(body)
    except (ValueError, RecursionError):
        return []
    if not isinstance(whole, dict):
        return []
    fields: dict[str, Any] = whole  # pyright: ignore[reportUnknownVariableType] - JSON keys are strings
    return [
        name[:MAX_FIELD_NAME]
        for name, value in fields.items()
        if _has_surrogate([value]) and not _has_surrogate([name])
    ]


def _has_surrogate(left: list[Any]) -> bool:
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value  # pyright: ignore[reportUnknownArgumentType]
            left += value.values()  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
        elif isinstance(value, list):
            left += value  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            return True
    return False
