"""The service's internal HTTP, for the API gateway: one message from a handset, and pages of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from libs.bus.errors import is_transient
from libs.contracts.http.requests import UNFILTERED, InboundQuery
from libs.service_kit.pages import BadCursor
from libs.service_kit.problems import answering, bad_field, invalid, not_known, shown, unavailable
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
        return answering("inbound messages", lambda: self.inbox, read, is_transient)


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
    try:
        query = InboundQuery.model_validate(dict(request.query))
    except ValidationError as error:
        raise invalid("query", error) from None
    if query.number is not None:
        query = query.model_copy(update={"number": sender_of(query.number, inbox.default_region)})
    try:
        async with asyncio.timeout(inbox.read_seconds):
            return shown(await queries.page(inbox.pool, tenant, query))
    except BadCursor:
        raise bad_field("cursor", "is none that a page gave as nextCursor") from None
    except TimeoutError:
        if query.model_fields_set <= UNFILTERED:
            raise
        narrow = "what is asked for is rare: narrow the search with from and to, or number"
        raise unavailable(f"the search took too long; {narrow}") from None
