"""Clients that do not give up: each message has an Idempotency-Key, and is asked for again until it is accepted."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from uuid import UUID

import aiohttp

from libs.sms_text.segments import count_segments
from tests.faults.auditor import Promise

ANSWER_SECONDS = 90.0
"""How long one message is asked for again; a killed gateway's key is in progress for 10 s, and it may be killed again."""
REQUEST_SECONDS = 5.0
LONG_SHARE, REPEATED_SHARE = 0.05, 0.05
"""The shares of texts of two segments, and of requests repeated although they were answered."""
LATER_SECONDS = 4.0
"""How long a scheduled message waits."""


@dataclass(frozen=True, slots=True)
class _Request:
    text: str
    body: dict[str, object]
    segments: int
    ids: list[UUID] = field(default_factory=lambda: list[UUID]())


class Load:
    """`clients` people are sent `rate` messages a second in all, from entering it until leaving it, when all have been answered.

    Each client asks for one message at a time, so that while nobody answers they wait instead of piling up.
    `name` begins every text and tags every message. `again` counts why requests were repeated. `scheduled_share` of the messages are
    asked for some seconds ahead.
    """

    def __init__(
        self, url: str, api_key: str, name: str, *, rate: float, clients: int, seed: int, scheduled_share: float = 0
    ) -> None:
        self.name = name
        self.again: Counter[str] = Counter()
        self._interval = clients / rate
        self._clients = clients
        self._scheduled_share = scheduled_share
        self._random = random.Random(seed)
        self._session = aiohttp.ClientSession(
            url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            connector=aiohttp.TCPConnector(limit=clients),
        )
        self._requests: list[_Request] = []
        self._ending = asyncio.Event()
        self._working: list[asyncio.Task[None]] = []

    @property
    def promises(self) -> list[Promise]:
        return [Promise(r.text, r.segments, tuple(r.ids)) for r in self._requests]

    @property
    def accepted(self) -> int:
        """How many messages have been accepted so far."""
        return sum(1 for r in self._requests if r.ids)

    async def __aenter__(self) -> Load:
        for client in range(self._clients):
            person = {"phone": f"+2547110{client:05d}", "name": f"Client {client}"}
            async with self._session.put(f"/clients/{self._id(client)}", json=person) as response:
                response.raise_for_status()
        self._working = [asyncio.create_task(self._client(client)) for client in range(self._clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if error is not None:
            for task in self._working:
                task.cancel()
        ended = await asyncio.gather(*self._working, return_exceptions=True)
        await self._session.close()
        failures = [each for each in ended if isinstance(each, Exception)]
        if error is None and failures:
            raise ExceptionGroup(
                f"clients were not answered; requests were repeated after {dict(self.again)}", failures
            )

    def _id(self, client: int) -> str:
        return f"{self.name}-client-{client}"

    async def _client(self, number: int) -> None:
        mine: list[_Request] = []
        turn = self._random.uniform(0, self._interval)
        while not await self._ends_within(turn):
            started = asyncio.get_running_loop().time()
            if mine and self._random.random() < REPEATED_SHARE:
                request = self._random.choice(mine[-20:])
            else:
                request = self._new_request(number)
                mine.append(request)
            request.ids.append(await self._until_accepted(request))
            turn = max(0.0, self._interval - (asyncio.get_running_loop().time() - started))

    def _new_request(self, client: int) -> _Request:
        text = f"{self.name}-{len(self._requests):06d}"
        # Every segment of a long text names it.
        message = " ".join([text] * 16) if self._random.random() < LONG_SHARE else text
        body: dict[str, object] = {"clientId": self._id(client), "message": message, "tags": [self.name]}
        if self._random.random() < self._scheduled_share:
            body["scheduledAt"] = (datetime.now(UTC) + timedelta(seconds=LATER_SECONDS)).isoformat()
        request = _Request(text, body, count_segments(message))
        self._requests.append(request)
        return request

    async def _until_accepted(self, request: _Request) -> UUID:
        key = {"Idempotency-Key": request.text}
        delay = 0.1
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                try:
                    async with self._session.post("/sms", json=request.body, headers=key) as response:
                        if response.status == 202:
                            return UUID((await response.json())["id"])
                        # Nobody answered until its time had passed: it is asked for at once.
                        too_late = response.status == 400 and request.body.pop("scheduledAt", None)
                        if response.status < 500 and response.status not in (409, 429) and not too_late:
                            raise AssertionError(f"{request.text}: {response.status} {await response.text()}")
                        self.again[str(response.status)] += 1
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    self.again[type(error).__name__] += 1
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)

    async def _ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            return False
        return True
