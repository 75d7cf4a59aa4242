"""The public HTTP server. It stands on aiohttp's low-level server: one function sees every request, so that every answer, whatever
happens, is ours (aiohttp's own errors are plain text), and the hot route pays for no second router."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web

from libs.service_kit.metrics import REQUEST_SECONDS, REQUESTS
from services.api_gateway.api_keys import NOBODY, ApiKeys
from services.api_gateway.calls import MAX_BODY_BYTES, Call
from services.api_gateway.handlers import Services
from services.api_gateway.problems import ProblemError
from services.api_gateway.routes import Route, Router

log = structlog.get_logger()

KEEPALIVE_SECONDS = 75.0
DRAIN_SECONDS = 10.0
UNMATCHED = "unmatched"


class Dispatcher:
    """Route, authentication, handler, problems, metrics."""

    def __init__(self, routes: Iterable[Route], keys: ApiKeys, services: Services) -> None:
        self._router = Router(routes)
        self._keys = keys
        self._services = services

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.perf_counter()
        path = UNMATCHED
        try:
            route, parameters = self._router.find(request.method, request.rel_url.raw_path)
            path = route.path
            caller = NOBODY
            if route.scope is not None:
                caller = self._keys.authenticate(request.headers.get("Authorization"), route.scope)
            response = await route.handler(self._services, Call(request, caller, parameters))
        except ProblemError as problem:
            response = problem.response()
        except ConnectionError:  # the caller has gone, or must see that its answer is cut off
            raise
        except Exception as error:
            # Without the exception's own words, which may repeat what came in.
            where = traceback.format_tb(error.__traceback__)[-4:]
            log.error("request failed", route=path, error=type(error).__name__, where=where)
            response = ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "the fault is ours, and is logged").response()
        _counter(path, response.status).inc()
        _histogram(path).observe(time.perf_counter() - started)
        return response


@cache
def _counter(route: str, status: int) -> Any:
    return REQUESTS.labels(route, status)


@cache
def _histogram(route: str) -> Any:
    return REQUEST_SECONDS.labels(route)


class _Connection(web.RequestHandler):
    """One connection. aiohttp calls `handle_error` for what is not HTTP, or too long to be."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun: it can only be cut off")
        words = "this is not HTTP/1.1, or a header is too long" if status < 500 else None
        response = ProblemError(HTTPStatus(status), words).response()
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, keepalive_timeout=KEEPALIVE_SECONDS, lingering_time=2.0)


async def serve(dispatcher: Dispatcher, host: str, port: int) -> web.ServerRunner:
    """Listen until the runner is cleaned up; that closes the door, answers what is under way, and closes the connections.

    Raises OSError when the address is taken.
    """
    loop = asyncio.get_running_loop()

    def make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)

    runner = web.ServerRunner(_Server(dispatcher, request_factory=make_request), shutdown_timeout=DRAIN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner
