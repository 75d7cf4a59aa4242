"""The service's internal HTTP, for the API gateway: one message from a handset, and pages of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from libs.bus.errors import is_transient
from libs.contracts.http import FieldProblem, InboundQuery, Problem
from libs.service_kit.internal import TENANT_HEADER
from libs.service_kit.pages import BadCursor
from libs.storage.database import Pool
from services.inbound import queries

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Inbox:
    """What reads need."""

    pool: Pool
    read_seconds: float


class _RequestError(Exception):
    """The request can't be answered, and which field is why."""

    def __init__(self, status: int, title: str, *errors: FieldProblem, detail: str | None = None) -> None:
        self.problem = Problem(title=title, status=status, detail=detail, errors=errors)


class ReadApi:
    """The routes are there from the start, so that health can be asked; they answer 503 until `inbox` is set."""

    def __init__(self) -> None:
        self.inbox: Inbox | None = None

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/internal/inbound", self._answering(_page), allow_head=False),
            web.get("/internal/inbound/{id}", self._answering(_one), allow_head=False),
        ]

    def _answering(self, read: Callable[[Inbox, str, web.Request], Awaitable[BaseModel]]) -> Handler:
        """A route's handler: finds the tenant, and turns what goes wrong into problem+json."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                if self.inbox is None:
                    raise _RequestError(503, "The inbound service is starting")
                tenant = request.headers.get(TENANT_HEADER)
                if not tenant:
                    raise _bad_request(FieldProblem(field=TENANT_HEADER, reason="is missing"))
                answer = await read(self.inbox, tenant, request)
            except _RequestError as error:
                return _problem(error.problem)
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("read failed", reason=type(error).__name__)
                return _problem(Problem(title="Inbound messages can't be read now", status=503))
            return web.Response(body=answer.model_dump_json(by_alias=True).encode(), content_type="application/json")

        return handle


async def _one(inbox: Inbox, tenant: str, request: web.Request) -> BaseModel:
    try:
        message_id = UUID(request.match_info["id"])
    except ValueError:
        raise _unknown() from None
    found = await queries.find(inbox.pool, tenant, message_id, inbox.read_seconds)
    if found is None:
        raise _unknown()
    return found


async def _page(inbox: Inbox, tenant: str, request: web.Request) -> BaseModel:
    try:
        query = InboundQuery.model_validate(dict(request.query))
    except ValidationError as error:
        raise _bad_request(
            *(
                FieldProblem(field=(".".join(map(str, e["loc"])) or "query")[:100], reason=e["msg"])
                for e in error.errors(include_input=False, include_url=False)
            )
        ) from None
    try:
        return await queries.page(inbox.pool, tenant, query, inbox.read_seconds)
    except BadCursor:
        raise _bad_request(FieldProblem(field="cursor", reason="is none that a page gave as nextCursor")) from None


def _bad_request(*errors: FieldProblem) -> _RequestError:
    return _RequestError(400, "The request is not valid", *errors)


def _unknown() -> _RequestError:
    return _RequestError(404, "No such inbound message is known")


def _problem(problem: Problem) -> web.Response:
    headers = {"Retry-After": "1"} if problem.status == 503 else None
    body = problem.model_dump_json(by_alias=True, exclude_none=True).encode()
    return web.Response(status=problem.status, body=body, content_type="application/problem+json", headers=headers)
