"""Traffic that never runs dry: messages are accepted as fast as the carrier takes them, with a backlog always waiting."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

from tests.end_to_end.client import Api, Carrier, Json
from tests.services.simulated_carrier.texts import join_texts

PORTION = 50
POLL_SECONDS = 0.05


class Feeder:
    """Sends to `clients` in turn, a portion whenever fewer than `backlog` messages wait. A text is the tag and the message's number."""

    def __init__(self, api: Api, carrier: Carrier, clients: Sequence[str], tag: str, backlog: int) -> None:
        self.clients = clients
        self.sent = 0
        self.tag = tag
        self._api = api
        self._carrier = carrier
        self._backlog = backlog
        self.began = carrier.last()
        """The sequence of the carrier's last entry from before."""

    async def feed(self) -> None:
        """Until cancelled; a portion begun is finished."""
        turn = count()
        while True:
            if self.sent - (self._carrier.last() - self.began) < self._backlog:
                portion = [
                    {"clientId": self.clients[next(turn) % len(self.clients)], "message": f"{self.tag} {n}"}
                    for n in range(self.sent, self.sent + PORTION)
                ]
                sending = asyncio.create_task(self._api.send_all({**m, "tags": [self.tag]} for m in portion))
                self.sent += PORTION
                try:
                    await asyncio.shield(sending)
                finally:
                    await sending
            await asyncio.sleep(POLL_SECONDS)

    async def check_all_ended_and_nothing_doubled(self, *, within: float = 60) -> dict[str, Json]:
        """Every message is delivered or in doubt; the carrier has none twice, and all that are said to be delivered."""
        messages = await self._api.ended(self.tag, self.sent, within=within)
        assert {sms["status"] for sms in messages.values()} <= {"delivered", "in_doubt"}
        received = Counter(joined.text for joined in join_texts(self._carrier.entries(self.began)))
        assert [text for text, times in received.items() if times > 1] == [], "nothing twice"
        assert {sms["message"] for sms in messages.values() if sms["status"] == "delivered"} <= received.keys()
        return messages


@asynccontextmanager
async def feeding(
    api: Api, carrier: Carrier, clients: Sequence[str], *, tag: str, backlog: int
) -> AsyncIterator[Feeder]:
    """Feed as long as the context lasts; fails there if the feeder did."""
    feeder = Feeder(api, carrier, clients, tag, backlog)
    task = asyncio.create_task(feeder.feed())
    try:
        yield feeder
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
