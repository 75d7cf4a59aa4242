"""The projection's internal HTTP, for the API gateway: one message with its history, pages of messages, and batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from uuid import UUID

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from libs.bus.errors import is_transient
from libs.contracts.http import ApiModel, FieldProblem, Problem, SmsQuery
from libs.service_kit.internal import TENANT_HEADER
from libs.service_kit.pages import BadCursor
from libs.storage.database import Pool
from services.projection import queries
from services.projection.arrivals import Arrivals

log = structlog.get_logger()

M = TypeVar("M", bound=ApiModel)

POLL_SECONDS = 0.025
"""How often a read of an unknown message looks again."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """What reads need."""

    pool: Pool
    arrivals: Arrivals
    hurry: Callable[[], None]
    """Called while a read waits for the fold."""
    wait_seconds: float
    read_seconds: float


class _RequestError(Exception):
    """The request can't be answered, and which field is why."""

    def __init__(self, status: int, title: str, *errors: FieldProblem, detail: str | None = None) -> None:
        self.problem = Problem(title=title, status=status, detail=detail, errors=errors)


class ReadApi:
    """The routes are there from the start, so that health can be asked; they answer 503 until `outbox` is set."""

    def __init__(self) -> None:
        self.outbox: Outbox | None = None

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/internal/sms", self._answering(_page), allow_head=False),
            web.get("/internal/sms/{id}", self._answering(partial(_one, "message", queries.find)), allow_head=False),
            web.get("/internal/batches/{id}", self._answering(partial(_one, "batch", queries.batch)), allow_head=False),
        ]

    def _answering(self, read: Callable[[Outbox, str, web.Request], Awaitable[BaseModel]]) -> Handler:
        """A route's handler: finds the tenant, and turns what goes wrong into problem+json."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                if self.outbox is None:
                    raise _RequestError(503, "The outbox is starting")
                tenant = request.headers.get(TENANT_HEADER)
                if not tenant:
                    raise _bad_request(FieldProblem(field=TENANT_HEADER, reason="is missing"))
                answer = await read(self.outbox, tenant, request)
            except _RequestError as error:
                return _problem(error.problem)
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("read failed", route=request.match_info.route.name, reason=type(error).__name__)
                return _problem(Problem(title="The outbox can't be read now", status=503))
            return web.Response(body=answer.model_dump_json(by_alias=True).encode(), content_type="application/json")

        return handle


Find = Callable[[Pool, str, UUID, float], Awaitable[M | None]]
"""Finds what a tenant has under an id, within so many seconds."""


async def _one(what: str, find: Find[M], outbox: Outbox, tenant: str, request: web.Request) -> M:
    try:
        wanted = UUID(request.match_info["id"])
    except ValueError:
        raise _unknown(what) from None
    found = await find(outbox.pool, tenant, wanted, outbox.read_seconds)
    return found or await _await_arrival(what, find, outbox, tenant, wanted)


async def _await_arrival(what: str, find: Find[M], outbox: Outbox, tenant: str, wanted: UUID) -> M:
    """It may be on its way: it is known not to be only when the outbox has passed what Kafka holds now."""
    loop = asyncio.get_running_loop()
    until = loop.time() + outbox.wait_seconds
    ends = await outbox.arrivals.ends()
    while True:
        passed = await outbox.arrivals.passed(ends)
        found = await find(outbox.pool, tenant, wanted, outbox.read_seconds)
        if found is not None:
            return found
        if passed:
            raise _unknown(what)
        if loop.time() >= until:
            raise _RequestError(503, f"No such {what} is known yet", detail="The outbox is behind: ask again")
        outbox.hurry()
        await asyncio.sleep(POLL_SECONDS)


async def _page(outbox: Outbox, tenant: str, request: web.Request) -> BaseModel:
    twice = {name for name in request.query if len(request.query.getall(name)) > 1}
    if twice:
        raise _bad_request(
            *(FieldProblem(field=name[:100], reason="is given more than once") for name in sorted(twice))
        )
    try:
        query = SmsQuery.model_validate(dict(request.query))
    except ValidationError as error:
        raise _bad_request(
            *(
                FieldProblem(field=(".".join(map(str, e["loc"])) or "query")[:100], reason=e["msg"])
                for e in error.errors(include_input=False, include_url=False)
            )
        ) from None
    try:
        return await queries.page(outbox.pool, tenant, query, outbox.read_seconds)
    except BadCursor:
        raise _bad_request(FieldProblem(field="cursor", reason="is none that a page gave as nextCursor")) from None
    except TimeoutError:
        detail = "What is asked for is rare: narrow the search with from and to, clientId or staffId"
        raise _RequestError(503, "The search took too long", detail=detail) from None


def _bad_request(*errors: FieldProblem) -> _RequestError:
    return _RequestError(400, "The request is not valid", *errors)


def _unknown(what: str) -> _RequestError:
    return _RequestError(404, f"No such {what} is known")


def _problem(problem: Problem) -> web.Response:
    headers = {"Retry-After": "1"} if problem.status == 503 else None
    body = problem.model_dump_json(by_alias=True, exclude_none=True).encode()
    return web.Response(status=problem.status, body=body, content_type="application/problem+json", headers=headers)
