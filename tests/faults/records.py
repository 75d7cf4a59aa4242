"""The records of a run, read where they are kept; and the wait until everything has come to rest."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import aiohttp
import asyncpg
import msgspec

from deploy.local.stack import Stack
from libs.contracts.statuses import Status
from libs.sms_text.parts import decode_text, read_part
from services.simulated_carrier.ledger import LedgerEntry
from tests.faults.auditor import Attempt, AttemptKey, Carried, Complaint, Promise, Records
from tests.kafka_groups import groups_of

AT_REST = frozenset({Status.DELIVERED, Status.IN_DOUBT})
NAME = re.compile(r"\b[a-z]+-\d{6}\b")

_ATTEMPTS = """
SELECT message_id, cycle, leg, part, try, owner, outcome, provider_id
  FROM dispatch.attempts WHERE message_id = ANY($1)
"""


class Reader:
    """Reads a stack's records. Make it with `reader`."""

    def __init__(self, stack: Stack, http: aiohttp.ClientSession) -> None:
        self._stack = stack
        self._http = http
        self._carrier = stack.environment()["CARRIER_URL"]

    async def steer_carrier(self, **behaviour: object) -> None:
        """Change what the carrier does; see `services/simulated_carrier/behaviour.py`."""
        async with self._http.patch(f"{self._carrier}/behaviour", json=behaviour) as response:
            assert response.status == 200, await response.text()

    async def ledger_end(self) -> int:
        """The sequence of the carrier's newest entry."""
        async with self._http.get(f"{self._carrier}/stats") as response:
            return (await response.json())["next_sequence"] - 1

    async def ledger(self, after: int) -> list[Carried]:
        """What the carrier has accepted since."""
        found: list[Carried] = []
        async with self._http.get(f"{self._carrier}/ledger", params={"after": str(after)}) as response:
            async for line in response.content:
                entry = _entry(line)
                if entry is not None:
                    found.append(entry)
        return found

    async def outbox(self, tag: str) -> dict[UUID, Status]:
        """The status of every message with this tag, as any caller may read it."""
        found: dict[UUID, Status] = {}
        parameters = {"tag": tag, "limit": "500"}
        while True:
            async with self._http.get(f"{self._stack.url}/sms", params=parameters) as response:
                assert response.status == 200, await response.text()
                page = await response.json()
            found |= {UUID(item["id"]): Status(item["status"]) for item in page["items"]}
            if page["nextCursor"] is None:
                return found
            parameters["cursor"] = page["nextCursor"]

    async def history(self, message_id: UUID) -> list[str]:
        """A message's transitions, a line each."""
        async with self._http.get(f"{self._stack.url}/sms/{message_id}") as response:
            if response.status != 200:
                return [f"{response.status} {await response.text()}"]
            shown = await response.json()
        return [
            f"{t['at']} {t['topic']}: {t['status']}, leg {t['leg']} part {t['part']} try {t['tryNumber']} {t['reason'] or ''}"
            for t in shown["history"]
        ]

    async def attempts(self, message_ids: Collection[UUID]) -> list[Attempt]:
        connection = await asyncpg.connect(self._stack.postgres_dsn)
        try:
            return [attempt_of(row) for row in await connection.fetch(_ATTEMPTS, list(message_ids))]
        finally:
            await connection.close()

    async def of_run(
        self,
        tag: str,
        promises: Sequence[Promise],
        after: int,
        killed: Mapping[UUID, frozenset[AttemptKey]],
    ) -> Records:
        """All records of one run: of the messages with this tag, and what the carrier accepted since."""
        outbox = await self.outbox(tag)
        told = {message_id for promise in promises for message_id in promise.ids}
        return Records(
            promises=promises,
            outbox=outbox,
            carried=await self.ledger(after),
            attempts=await self.attempts(outbox.keys() | told),
            killed=killed,
            window=self._stack.configuration.gateway("demo").window,
        )

    async def until_at_rest(self, tag: str, promises: Collection[Promise], *, within: float) -> None:
        """Return when no message is under way and no record is left unread. TimeoutError says what still moves."""
        missing: list[str] = ["nothing was looked at"]
        try:
            async with asyncio.timeout(within):
                while missing:
                    await asyncio.sleep(0.5)
                    missing = await self._missing(tag, promises)
        except TimeoutError:
            raise TimeoutError(f"not at rest after {within:.0f} s: {'; '.join(missing)}") from None

    async def histories(self, complaints: Sequence[Complaint], most: int = 5) -> str:
        """What Postrider tells of the first messages that complaints are about."""
        ids = list(dict.fromkeys(c.message_id for c in complaints if c.message_id is not None))[:most]
        return "".join([f"\nhistory of {i}\n    " + "\n    ".join(await self.history(i)) for i in ids])

    async def _missing(self, tag: str, promises: Collection[Promise]) -> list[str]:
        shown = await self.outbox(tag)
        moving = [p for p in promises if any(shown.get(i) not in AT_REST for i in p.ids)]
        if moving:
            statuses = {p.text: str(shown.get(p.ids[0])) for p in moving[:5]}
            return [f"{len(moving)} of {len(promises)} messages are under way, such as {statuses}"]
        async with groups_of(self._stack.kafka) as groups:
            behind = await groups.lag()
        if behind:
            return [f"consumers are behind: {behind}"]
        async with self._http.get(f"{self._carrier}/stats") as response:
            stats = await response.json()
        if stats["due_later"] or stats["deliveries_held"]:
            return ["the carrier has receipts to bring"]
        return []


@asynccontextmanager
async def reader(stack: Stack) -> AsyncIterator[Reader]:
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=30)) as http:
        yield Reader(stack, http)


def attempt_of(row: asyncpg.Record) -> Attempt:
    key = AttemptKey(row["message_id"], row["cycle"], row["leg"], row["part"], row["try"])
    outcome: bytes | None = row["outcome"]
    return Attempt(key, row["owner"], outcome.decode() if outcome is not None else None, row["provider_id"])


def _entry(line: bytes) -> Carried | None:
    """A ledger line's part, if it was accepted, under the name that its text has in every segment."""
    entry = msgspec.json.decode(line, type=LedgerEntry)
    if not entry.accepted:
        return None
    part = read_part(bytes.fromhex(entry.short_message), entry.esm_class)
    text = decode_text(part.octets, entry.data_coding)
    name = max(NAME.findall(text), key=len, default=text)  # a segment may begin or end within one
    return Carried(entry.sequence, name, part.number, entry.provider_id)
