"""A service's own HTTP server: /health/live, /health/ready (says what is missing), /metrics, and its internal routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from libs.service_kit.internal import require_token

Check = Callable[[], str | None]
"""Says what is missing, or None when nothing is."""


class Health:
    """What a service waits for. Ready means that every check has nothing to say."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self.starting: str | None = "starting"

    def add(self, name: str, check: Check) -> None:
        self._checks[name] = check

    def missing(self) -> dict[str, str]:
        """By name, what is missing now."""
        found = {name: words for name, check in self._checks.items() if (words := check()) is not None}
        if self.starting is not None:
            found["start"] = self.starting
        return found


async def start_ops_server(
    host: str, port: int, token: str, health: Health, routes: Iterable[web.RouteDef] = ()
) -> web.AppRunner:
    """Serve health, metrics and the given internal routes until the runner is cleaned up."""

    async def live(_: web.Request) -> web.Response:
        return web.json_response({"status": "live"})

    async def ready(_: web.Request) -> web.Response:
        missing = health.missing()
        if missing:
            return web.json_response({"status": "not ready", "missing": missing}, status=503)
        return web.json_response({"status": "ready"})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(middlewares=[require_token(token)])
    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    app.router.add_get("/metrics", metrics)
    app.router.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
