"""HTTP between services: the token that opens the internal API, on both sides."""

from __future__ import annotations

import hmac

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

HEADER = "X-Postrider-Internal"
TENANT_HEADER = "X-Postrider-Tenant"
"""The tenant on whose behalf the API gateway asks; set by the gateway only, after it has checked the caller's key."""


def require_token(token: str) -> Middleware:
    """A middleware that lets only the other services in; health and metrics stay open."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/health/") or request.path == "/metrics":
            return await handler(request)
        given = request.headers.get(HEADER, "").encode(errors="surrogateescape")  # octets that are not UTF-8 come so
        if not hmac.compare_digest(given, token.encode()):
            raise web.HTTPUnauthorized(text="this address is for Postrider's own services")
        return await handler(request)

    return check
