"""Between the connections and the handlers: route, authentication, problems, metrics."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Iterable
from functools import cache
from http import HTTPStatus
from typing import Any

import structlog

from libs.service_kit.metrics import REQUEST_SECONDS, REQUESTS
from libs.service_kit.problems import ProblemError
from services.api_gateway.api_keys import ApiKeys
from services.api_gateway.handlers import Services
from services.api_gateway.http.calls import Call, require_json
from services.api_gateway.http.responses import Response
from services.api_gateway.problems import problem_response
from services.api_gateway.routes import Route, Router

log = structlog.get_logger()

UNMATCHED = "unmatched"


class RoutedApplication:
    """The `Application` that connections serve. Whatever happens, each call gets an answer, and every error is a problem."""

    def __init__(self, routes: Iterable[Route], keys: ApiKeys, services: Services) -> None:
        self._router = Router(routes)
        self._keys = keys
        self._services = services
        self._tasks = set[asyncio.Task[None]]()

    def admit(self, call: Call) -> Response | None:
        """By the head alone: is there such a route, who calls, may they, and is the body of a kind that is read here?"""
        try:
            route, call.parameters = self._router.find(call.method, call.path)
            call.route, call.most_bytes, call.alongside = route, route.most_bytes, route.alongside
            if route.scope is not None:
                call.caller = self._keys.authenticate(call.headers.get(b"authorization"), route.scope)
            if route.body is not None:
                require_json(call)
        except Exception as error:
            return self.response(call, error)
        return None

    def serve(self, call: Call) -> None:
        assert call.route is not None  # it is admitted
        try:
            awaitable = call.route.handler(self._services, call)
        except Exception as error:
            call.answer(error)
            return
        if awaitable is not None:
            task = asyncio.create_task(_serve(call, awaitable))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def response(self, call: Call, result: Response | Exception) -> Response:
        path = call.route.path if call.route is not None else UNMATCHED
        if isinstance(result, Response):
            response = result
        elif isinstance(result, ProblemError):
            response = problem_response(result)
        else:
            # Without the exception's own words, which may repeat what came in.
            where = traceback.format_tb(result.__traceback__)[-4:]
            log.error("request failed", route=path, error=type(result).__name__, where=where)
            fault = ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "the fault is ours, and is logged")
            response = problem_response(fault)
        _counter(path, response.status).inc()
        _histogram(path).observe(time.perf_counter() - call.started)
        return response


async def _serve(call: Call, awaitable: Awaitable[Response | None]) -> None:
    try:
        response = await awaitable
        if response is not None:
            call.answer(response)
    except Exception as error:
        call.answer(error)


@cache
def _counter(route: str, status: int) -> Any:
    return REQUESTS.labels(route, status)


@cache
def _histogram(route: str) -> Any:
    return REQUEST_SECONDS.labels(route)
