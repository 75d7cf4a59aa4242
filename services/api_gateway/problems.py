"""Every error that leaves the API: application/problem+json (RFC 9457), naming the fields and why, never repeating a value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

from libs.contracts.http.answers import FieldProblem, Problem
from libs.contracts.http.problems import CONTENT_TYPE, MAX_FIELD_NAME, fields_of, wrong
from services.api_gateway.responses import Response


class ProblemError(Exception):
    """An answer to the caller that is not success. `retry_after` is in whole seconds."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str | None = None,
        *,
        errors: Iterable[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(status)
        self.problem = Problem(title=status.phrase, status=status, detail=detail, errors=tuple(errors))
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, retry_after))

    def response(self) -> Response:
        body = self.problem.model_dump_json(by_alias=True).encode()
        return Response(self.problem.status, body, CONTENT_TYPE, self.headers)


def bad_field(field: str, why: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> ProblemError:
    """One wrong field."""
    return ProblemError(status, f"{field}: {why}", errors=[FieldProblem(field=field, reason=why)])


def unavailable(detail: str, retry_after: int = 2) -> ProblemError:
    """503: a neighbour is away; nothing was done that a repeat could do twice, unless `detail` says so."""
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, detail, retry_after=retry_after)


def invalid_query(error: ValidationError) -> ProblemError:
    """400 for query parameters that the model refuses."""
    return _invalid("query", fields_of("query", error))


def invalid_body(error: ValidationError, body: bytes) -> ProblemError:
    """400 for a body that the model refuses, or that is no JSON."""
    if error.errors(include_input=False)[0]["type"] != "json_invalid":
        return _invalid("body", fields_of("body", error))
    surrogates = _lone_surrogates(body)
    if surrogates:
        words = "holds half of a surrogate pair, which is no character"
        return _invalid("body", [FieldProblem(field=field, reason=words) for field in surrogates])
    return ProblemError(
        HTTPStatus.BAD_REQUEST, error.errors(include_input=False)[0]["msg"]
    )  # says line and column, and quotes nothing


def _invalid(what: str, errors: Sequence[FieldProblem]) -> ProblemError:
    return ProblemError(HTTPStatus.BAD_REQUEST, wrong(what, errors), errors=errors)


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
