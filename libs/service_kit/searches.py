"""Searches over internal HTTP: reads what is asked for, and answers a page of what is found."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from libs.contracts.http.requests import UNFILTERED
from libs.service_kit.pages import BadCursor
from libs.service_kit.problems import bad_field, invalid, shown, unavailable

Q = TypeVar("Q", bound=BaseModel)


async def answer_page(
    request: web.Request, model: type[Q], search: Callable[[Q], Awaitable[BaseModel]], *, seconds: float, narrow_by: str
) -> web.Response:
    """The page that `search` finds for the request's query, which is one of `model`.

    A query or a cursor that is wrong is answered 400; a search that takes more than `seconds` 503, with the advice to narrow it by
    `narrow_by` if it leaves anything out. Else raises TimeoutError, and what `search` raises.
    """
    try:
        query = model.model_validate(dict(request.query))
    except ValidationError as error:
        raise invalid("query", error) from None
    try:
        async with asyncio.timeout(seconds):
            return shown(await search(query))
    except BadCursor:
        raise bad_field("cursor", "is none that a page gave as nextCursor") from None
    except TimeoutError:
        if query.model_fields_set <= UNFILTERED:
            raise
        narrow = f"what is asked for is rare: narrow the search with {narrow_by}"
        raise unavailable(f"the search took too long; {narrow}") from None
