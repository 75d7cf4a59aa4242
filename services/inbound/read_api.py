"""The service's internal HTTP, for the API gateway: one message from a handset, and pages of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from aiohttp import web
from aiohttp.typedefs import Handler

from libs.contracts.http.answers import InboundPage
from libs.contracts.http.requests import InboundQuery
from libs.service_kit.problems import answering, not_known, shown
from libs.service_kit.searches import answer_page
from libs.storage.database import Pool
from services.inbound import queries
from services.inbound.senders import sender_of


@dataclass(frozen=True, slots=True)
class Inbox:
    """What reads need."""

    pool: Pool
    read_seconds: float
    """How long PostgreSQL may take for one answer, a free connection included."""
    default_region: str | None


class ReadApi:
    """The routes are there from the start, so that health can be asked; they answer 503 until `inbox` is set."""

    def __init__(self) -> None:
        self.inbox: Inbox | None = None

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/internal/inbound", self._answering(_page), allow_head=False),
            web.get("/internal/inbound/{id}", self._answering(_one), allow_head=False),
        ]

    def _answering(self, read: Callable[[Inbox, str, web.Request], Awaitable[web.Response]]) -> Handler:
        return answering("inbound messages", lambda: self.inbox, read)


async def _one(inbox: Inbox, tenant: str, request: web.Request) -> web.Response:
    try:
        message_id = UUID(request.match_info["id"])
    except ValueError:
        raise not_known("inbound message") from None
    async with asyncio.timeout(inbox.read_seconds):
        found = await queries.find(inbox.pool, tenant, message_id)
    if found is None:
        raise not_known("inbound message")
    return shown(found)


async def _page(inbox: Inbox, tenant: str, request: web.Request) -> web.Response:
    async def search(query: InboundQuery) -> InboundPage:
        if query.number is not None:
            query = query.model_copy(update={"number": sender_of(query.number, inbox.default_region)})
        return await queries.page(inbox.pool, tenant, query)

    narrow_by = "from and to, or number"
    return await answer_page(request, InboundQuery, search, seconds=inbox.read_seconds, narrow_by=narrow_by)
