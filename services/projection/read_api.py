"""The projection's internal HTTP, for the API gateway: one message with its history, pages of messages, and batches."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from uuid import UUID

from aiohttp import web
from aiohttp.typedefs import Handler

from libs.contracts.http.answers import SmsPage
from libs.contracts.http.model import ApiModel
from libs.contracts.http.requests import SmsQuery
from libs.phone_numbers.parse import NumberError, parse
from libs.service_kit.problems import answering, bad_field, not_known, shown, unavailable
from libs.service_kit.searches import answer_page
from libs.storage.database import Pool
from services.projection import queries
from services.projection.arrivals import Arrivals

M = TypeVar("M", bound=ApiModel)

_E164 = re.compile(r"\+[1-9][0-9]{4,14}")

POLL_SECONDS = 0.025
"""How often a read of an unknown message looks again."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """What reads need."""

    pool: Pool
    arrivals: Arrivals
    hurry: Callable[[], None]
    """Called while a read waits: what is kept back is folded at once."""
    wait_seconds: float
    """How long a read waits for a message that may be on its way."""
    read_seconds: float
    """How long PostgreSQL may take each time it is asked, a free connection included."""
    default_region: str | None


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

    def _answering(self, read: Callable[[Outbox, str, web.Request], Awaitable[web.Response]]) -> Handler:
        return answering("the outbox", lambda: self.outbox, read)


Find = Callable[[Pool, str, UUID], Awaitable[M | None]]
"""Finds what a tenant has under an id."""


async def _one(what: str, find: Find[M], outbox: Outbox, tenant: str, request: web.Request) -> web.Response:
    try:
        wanted = UUID(request.match_info["id"])
    except ValueError:
        raise not_known(what) from None
    async with asyncio.timeout(outbox.read_seconds):
        found = await find(outbox.pool, tenant, wanted)
    return shown(found or await _await_arrival(what, find, outbox, tenant, wanted))


async def _await_arrival(what: str, find: Find[M], outbox: Outbox, tenant: str, wanted: UUID) -> M:
    """Wait for what may be on its way: only when the outbox has passed what Kafka holds now is it known not to be."""
    loop = asyncio.get_running_loop()
    until = loop.time() + outbox.wait_seconds
    ends = await outbox.arrivals.ends()
    while True:
        async with asyncio.timeout(outbox.read_seconds):
            passed = await outbox.arrivals.passed(ends)
            found = await find(outbox.pool, tenant, wanted)
        if found is not None:
            return found
        if passed:
            raise not_known(what)
        if loop.time() >= until:
            raise unavailable(f"no such {what} is known yet; the outbox is behind: ask again")
        outbox.hurry()
        await asyncio.sleep(POLL_SECONDS)


async def _page(outbox: Outbox, tenant: str, request: web.Request) -> web.Response:
    async def search(query: SmsQuery) -> SmsPage:
        if query.number is not None:
            query = query.model_copy(update={"number": _e164(query.number, outbox.default_region)})
        return await queries.page(outbox.pool, tenant, query)

    narrow_by = "from and to, clientId or staffId"
    return await answer_page(request, SmsQuery, search, seconds=outbox.read_seconds, narrow_by=narrow_by)


def _e164(number: str, default_region: str | None) -> str:
    """The number as the outbox keeps it. What has the form of E.164 is taken as it is: numbering plans change, and what was sent before is
    still to be found."""
    if _E164.fullmatch(number):
        return number
    for spelling in (number, "+" + number):
        try:
            return parse(spelling, default_region)
        except NumberError:
            continue
    raise bad_field("number", "must be a phone number with its country code, as in +254711000001")
