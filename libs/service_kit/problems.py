"""Internal HTTP on behalf of a tenant: handlers whose faults are answered as problem+json (RFC 9457), naming the fields and why."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from libs.contracts.http.answers import FieldProblem, Problem
from libs.contracts.http.problems import CONTENT_TYPE, MAX_FIELD_NAME, fields_of, wrong
from libs.service_kit.internal import TENANT_HEADER

log = structlog.get_logger()

T = TypeVar("T")

RETRY_SECONDS = 1


class RequestError(Exception):
    """The request can't be answered: why, and which fields are to blame."""

    def __init__(self, status: HTTPStatus, detail: str, *errors: FieldProblem) -> None:
        super().__init__(detail)
        self.problem = Problem(title=status.phrase, status=status, detail=detail, errors=errors)

    def response(self) -> web.Response:
        body = self.problem.model_dump_json(by_alias=True).encode()
        headers = {"Retry-After": str(RETRY_SECONDS)} if self.problem.status == 503 else None
        return web.Response(status=self.problem.status, body=body, content_type=CONTENT_TYPE, headers=headers)


def not_known(what: str) -> RequestError:
    return RequestError(HTTPStatus.NOT_FOUND, f"no such {what} is known")


def unavailable(detail: str) -> RequestError:
    """It may be asked again at once."""
    return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, detail)


def bad_fields(whole: str, *errors: FieldProblem) -> RequestError:
    """At least one field of the query or the body that is wrong."""
    return RequestError(HTTPStatus.BAD_REQUEST, wrong(whole, errors), *errors)


def bad_field(field: str, reason: str) -> RequestError:
    error = FieldProblem(field=field[:MAX_FIELD_NAME], reason=reason)
    return RequestError(HTTPStatus.BAD_REQUEST, f"{error.field}: {reason}", error)


def invalid(whole: str, error: ValidationError) -> RequestError:
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
    is_transient: Callable[[Exception], bool],
) -> Handler:
    """A route's handler: finds what `act` needs and the tenant, and turns what goes wrong into a problem.

    503 while `ground` is None, and where `is_transient` says of an error that a neighbour is away; `what` is how its words name what
    can't be reached.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            if (needed := ground()) is None:
                raise unavailable(f"{what} can't be reached yet: the service is starting")
            if not (tenant := request.headers.get(TENANT_HEADER)):
                raise bad_field(TENANT_HEADER, "is missing")
            return await act(needed, tenant, request)
        except RequestError as error:
            return error.response()
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("request failed", what=what, method=request.method, reason=type(error).__name__)
            return unavailable(f"{what} can't be reached now").response()

    return handle
