"""The service's internal HTTP: what is parked."""

from __future__ import annotations

import asyncio

from aiohttp import web

from libs.service_kit.transient import is_transient
from libs.storage.database import Pool
from services.receipts import store
from services.receipts.matching import Receipt

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
READ_SECONDS = 5.0


class ParkedApi:
    """`GET /internal/parked?gateway=&limit=`: receipts that found no message, newest first; of all gateways if none is named.

    The route is there from the start, so that health can be asked; it answers 503 until `pool` is set, and while PostgreSQL is away.
    """

    def __init__(self) -> None:
        self.pool: Pool | None = None

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/internal/parked", self._get, allow_head=False)]

    async def _get(self, request: web.Request) -> web.Response:
        if self.pool is None:
            raise web.HTTPServiceUnavailable(text="PostgreSQL is not there yet")
        limit, gateway = _limit(request.query.get("limit")), request.query.get("gateway") or None
        if gateway and "\0" in gateway:
            raise web.HTTPBadRequest(text="gateway: holds a NUL")
        try:
            async with asyncio.timeout(READ_SECONDS), self.pool.acquire() as connection:
                receipts = await store.unmatched(connection, gateway, limit)
        except Exception as error:
            if not is_transient(error):
                raise
            raise web.HTTPServiceUnavailable(text=f"PostgreSQL can't be reached now: {type(error).__name__}") from None
        return web.json_response({"items": [_shown(r) for r in receipts]})


def _limit(given: str | None) -> int:
    try:
        limit = int(given) if given is not None else DEFAULT_LIMIT
    except ValueError:
        limit = 0
    if not 1 <= limit <= MAX_LIMIT:
        raise web.HTTPBadRequest(text=f"limit: must be a whole number from 1 to {MAX_LIMIT}")
    return limit


def _shown(r: Receipt) -> dict[str, str | None]:
    return {
        "gateway": r.gateway,
        "providerId": r.provider_id,
        "receiptId": r.id,
        "state": r.state,
        "word": r.word,
        "error": r.error,
        "carrierTime": r.carrier_time,
        "observedAt": r.observed_at.isoformat(),
    }
