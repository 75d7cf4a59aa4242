"""Every error that an HTTP API answers: application/problem+json (RFC 9457), naming the fields and why, never repeating a value.

The API gateway answers them by a server of its own; handlers of internal HTTP are made here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TypeVar

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from libs.contracts.http.answers import FieldProblem, Problem
from libs.contracts.http.problems import CONTENT_TYPE, MAX_FIELD_NAME, fields_of, wrong
from libs.service_kit.internal import TENANT_HEADER
from libs.service_kit.transient import is_transient

log = structlog.get_logger()

T = TypeVar("T")


class ProblemError(Exception):
    """An answer to the caller that is not success: why, which fields are to blame, and the headers beside. `retry_after` is in seconds."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
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


def not_known(what: str) -> ProblemError:
    return ProblemError(HTTPStatus.NOT_FOUND, f"no such {what} is known")


def unavailable(detail: str, retry_after: int = 1) -> ProblemError:
    """503: nothing was done that a repeat could do twice, unless `detail` says so."""
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, detail, retry_after=retry_after)


def bad_fields(whole: str, *errors: FieldProblem) -> ProblemError:
    """At least one field of the query or the body that is wrong."""
    return ProblemError(HTTPStatus.BAD_REQUEST, wrong(whole, errors), errors=errors)


def bad_field(field: str, reason: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> ProblemError:
    """One wrong field. Its name may be the caller's, of any length: it is cut."""
    error = FieldProblem(field=field[:MAX_FIELD_NAME], reason=reason)
    return ProblemError(status, f"{error.field}: {reason}", errors=[error])


def invalid(whole: str, error: ValidationError) -> ProblemError:
    """The fields that a model refuses; `whole` is named where no one field is to blame."""
    return bad_fields(whole, *fields_of(whole, error))


def shown(model: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """A model as it goes out."""
    return web.Response(
        status=status, body=model.model_dump_json(by_alias=True).encode(), content_type="application/json"
    )


def answering(
    what: str,
    ground: Callable[[], T | None],
    act: Callable[[T, str, web.Request], Awaitable[web.Response]],
) -> Handler:
    """A route's handler: finds what `act` needs and the tenant, and turns what goes wrong into a problem.

    503 while `ground` is None, and while a neighbour is away; `what` is how its words name what can't be reached.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            if (needed := ground()) is None:
                raise unavailable(f"{what} can't be reached yet: the service is starting")
            if not (tenant := request.headers.get(TENANT_HEADER)):
                raise bad_field(TENANT_HEADER, "is missing")
            return await act(needed, tenant, request)
        except ProblemError as error:
            return _response(error)
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("request failed", what=what, method=request.method, reason=type(error).__name__)
            return _response(unavailable(f"{what} can't be reached now"))

    return handle


def _response(error: ProblemError) -> web.Response:
    body = error.problem.model_dump_json(by_alias=True).encode()
    return web.Response(status=error.problem.status, body=body, content_type=CONTENT_TYPE, headers=error.headers)
