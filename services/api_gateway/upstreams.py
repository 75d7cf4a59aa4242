"""Reads and contact changes go to the service that owns the answer, over its internal HTTP; the answer's bytes are passed through."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import quote

import aiohttp
import structlog
from aiohttp import hdrs
from yarl import URL

from libs.contracts.http.problems import CONTENT_TYPE as PROBLEM
from libs.service_kit.internal import HEADER, TENANT_HEADER
from services.api_gateway.http.calls import Call
from services.api_gateway.http.responses import JSON, Response
from services.api_gateway.problems import unavailable

log = structlog.get_logger()

CONNECT_SECONDS = 2.0
CONNECTIONS = 100
"""So many calls wait for one service's answer at a time; one more waits for its turn."""
TURN_SECONDS = 2.0


class Upstream:
    """A service's internal HTTP, over connections of its own. `name` is what callers are told when it is away.

    Make it in a running loop. An answer may take `timeout_seconds`.
    """

    def __init__(self, name: str, base_url: str, token: str, timeout_seconds: float) -> None:
        self._name = name
        self._base = base_url.rstrip("/") + "/internal"
        self._token = token
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, connect=CONNECT_SECONDS)
        # `_turns` limits the connections: waiting for one is to be told from waiting for the service.
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
        self._turns = asyncio.Semaphore(CONNECTIONS)

    async def close(self) -> None:
        await self._session.close()

    async def forward(
        self,
        call: Call,
        *path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        method: str | None = None,
    ) -> Response:
        """Ask on behalf of the caller's tenant. The service's own problems (4xx, 503) are passed on; raises 503 when it is away or at
        fault, or too many calls wait for it."""
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise unavailable(f"too many calls wait for the {self._name} already") from None
        try:
            return await self._ask(call, path, query, body, method or call.method)
        finally:
            self._turns.release()

    async def _ask(
        self, call: Call, path: tuple[str, ...], query: Mapping[str, str] | None, body: bytes | None, method: str
    ) -> Response:
        url = URL("/".join((self._base, *(quote(step, safe="") for step in path))), encoded=True)
        headers = {HEADER: self._token, TENANT_HEADER: call.caller.tenant, hdrs.CONTENT_TYPE: JSON}
        try:
            async with self._session.request(
                method, url.update_query(query or {}), data=body, headers=headers, allow_redirects=False
            ) as answer:
                if _is_for_caller(answer):
                    retry_after = answer.headers.get(hdrs.RETRY_AFTER)
                    passed_on = {"Retry-After": retry_after} if retry_after is not None else {}
                    return Response(answer.status, await answer.read(), answer.content_type, passed_on)
                log.error("upstream at fault", upstream=self._name, status=answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("upstream away", upstream=self._name, reason=type(error).__name__)
            raise unavailable(f"the {self._name} is away") from None
        raise unavailable(f"the {self._name} can't answer now")


def _is_for_caller(answer: aiohttp.ClientResponse) -> bool:
    """Success in JSON, or a problem that is the caller's; not 401, which would be about our own token."""
    if answer.status == 204:
        return True
    if 200 <= answer.status < 300:
        return answer.content_type == JSON
    return (
        answer.content_type == PROBLEM and (400 <= answer.status < 500 or answer.status == 503) and answer.status != 401
    )
