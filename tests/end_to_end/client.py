"""What the end-to-end tests do with a running system: send and read over its API, read the carrier's ledger, ask its processes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from deploy.local.stack import Stack
from deploy.local.supervisor import SupervisedProcess
from services.simulated_carrier.ledger import LedgerEntry, read_ledger
from tests.waiting import until

Json = dict[str, Any]

UNDER_WAY = ("accepted", "queued", "submitted")
TOGETHER = 20
"""Requests under way at once."""


class Api:
    """The public API, as one caller."""

    def __init__(self, url: str, key: str | None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        connector = aiohttp.TCPConnector(limit=TOGETHER)
        timeout = aiohttp.ClientTimeout(total=60)
        self._session = aiohttp.ClientSession(url, headers=headers, connector=connector, timeout=timeout)

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Json]:
        """Status and body of the answer."""
        async with self._session.request(method, path, json=body, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def put_client(self, client_id: str, phone: str, name: str | None = None) -> None:
        status, answer = await self.call("PUT", f"/clients/{client_id}", {"phone": phone, "name": name})
        assert status in (200, 201), answer

    async def put_clients(self, phones: Mapping[str, str]) -> None:
        """Clients by id, with their numbers."""
        await asyncio.gather(*(self.put_client(*client) for client in phones.items()))

    async def send(self, **message: object) -> str:
        """The id of the accepted message."""
        status, answer = await self.call("POST", "/sms", message)
        assert status == 202, answer
        assert answer["status"] == "accepted"
        return answer["id"]

    async def send_all(self, messages: Iterable[Mapping[str, object]]) -> list[str]:
        """The ids, in the order of the messages."""
        return await asyncio.gather(*(self.send(**message) for message in messages))

    async def read(self, message_id: str) -> Json:
        status, answer = await self.call("GET", f"/sms/{message_id}")
        assert status == 200, answer
        return answer

    async def read_all(self, message_ids: Iterable[str]) -> list[Json]:
        return await asyncio.gather(*map(self.read, message_ids))

    async def list(self, **filters: str) -> list[Json]:
        """All pages, newest first."""
        found: list[Json] = []
        query = {"limit": "500", **filters}
        while True:
            async with self._session.get("/sms", params=query) as response:
                page = await response.json(content_type=None)
                assert response.status == 200, page
            found += page["items"]
            if page["nextCursor"] is None:
                return found
            query["cursor"] = page["nextCursor"]

    async def ended(self, tag: str, count: int, *, within: float = 60) -> dict[str, Json]:
        """The messages with this tag by id, once all `count` of them are there and none is under way any more."""

        async def all_ended() -> dict[str, Json] | None:
            for status in UNDER_WAY:
                _, page = await self.call("GET", f"/sms?tag={tag}&status={status}&limit=1")
                if page["items"]:
                    return None
            found = await self.list(tag=tag)
            whole = len(found) >= count and all(sms["status"] not in UNDER_WAY for sms in found)
            return {sms["id"]: sms for sms in found} if whole else None

        messages = await until(all_ended, f"the end of {count} messages with the tag {tag}", within=within)
        assert len(messages) == count
        return messages


class Carrier:
    """The simulated carrier's ledger, and its steering."""

    def __init__(self, stack: Stack) -> None:
        self._ledger: Path = stack.directory / "carrier"
        self._last = 0
        self._url = stack.environment()["CARRIER_URL"]

    def entries(self, after: int = 0) -> list[LedgerEntry]:
        """Every submit it saw since the one with this sequence."""
        return list(read_ledger(self._ledger, after))

    def last(self) -> int:
        """The sequence of the newest entry."""
        for entry in read_ledger(self._ledger, self._last):
            self._last = entry.sequence
        return self._last

    async def steer(self, **sections: Mapping[str, object]) -> None:
        """Change these fields of its behaviour."""
        await self._ask("PATCH", "/behaviour", sections)

    async def calm(self) -> None:
        """Back to its first behaviour, and count from zero."""
        await self._ask("DELETE", "/behaviour")
        await self._ask("DELETE", "/stats")

    async def bring(self, **message: object) -> None:
        """Have a handset send a message to whoever is bound for the demo gateway."""
        await self._ask("POST", "/actions/mobile-originated", {"system_id": "postrider", **message})

    async def sessions(self, system_id: str) -> Json:
        """How many are bound, and the most that ever were at once."""
        return (await self._ask("GET", "/sessions"))["system_ids"][system_id]

    async def statistics(self) -> Json:
        return await self._ask("GET", "/stats")

    async def _ask(self, method: str, path: str, body: object = None) -> Json:
        async with aiohttp.ClientSession(self._url) as session, session.request(method, path, json=body) as response:
            assert response.ok, await response.text()
            return await response.json() if response.status != 204 else {}


async def metric(process: SupervisedProcess, name: str) -> float:
    """The sum over all labels of one of the process's metrics; 0 while it does not answer."""
    url = process.spec.ready_url.replace("/health/ready", "/metrics")
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session,
            session.get(url) as response,
        ):
            text = await response.text()
    except (aiohttp.ClientError, TimeoutError):
        return 0
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


async def bound(processes: Sequence[SupervisedProcess]) -> list[SupervisedProcess]:
    """The dispatchers that are bound to the carrier now."""
    values = await asyncio.gather(*(metric(process, "postrider_bound") for process in processes))
    return [process for process, value in zip(processes, values, strict=True) if value]
