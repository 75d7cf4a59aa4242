"""What is due leaves: taken in its order, marked as leaving, published, and only then settled; a limited number a second, and no more
than the resolver has room for. What is of high priority leaves first, and waits for no room.

Marked before it is published: from then on it can't be cancelled here any more, and the next who decides about it is the resolver.
Published before it is settled: whoever dies between has it published again, by another replica or by itself, once its lease is
over. That is the same event, and the resolver repeats the decision that it stored for the first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from libs.bus.port import Publisher
from libs.service_kit.backoff import GivenUp, until_done
from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import ENTRIES_SETTLED, RETURN_DELAY
from libs.service_kit.waiting import set_within
from libs.storage.database import Pool
from services.scheduler import store
from services.scheduler.publications import outgoing
from services.scheduler.room import ROOM_LOOK_SECONDS, Room
from services.scheduler.store import Arrival, Outcome

log = structlog.get_logger()

BATCH = 500
LOOK_SECONDS = 0.5
"""So often it looks for what other replicas took in, or left behind. What this one takes in wakes it."""


class Leaving:
    """`rows_per_second` bounds how many leave through this replica; `lease` is how long it may take to publish a batch."""

    def __init__(
        self,
        pool: Pool,
        publisher: Publisher,
        now: Callable[[], datetime],
        rows_per_second: float,
        lease: timedelta,
        room: Room,
    ) -> None:
        self._pool = pool
        self._publisher = publisher
        self._now = now
        self._rows_per_second = rows_per_second
        self._batch = max(1, min(BATCH, int(rows_per_second / 10)))
        self._lease = lease
        self._room = room
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._sleeps_until: datetime | None = None

    def on_arrival(self, due_at: datetime) -> None:
        """Something came in that is due at this time."""
        if self._sleeps_until is None or due_at < self._sleeps_until:
            self._woken.set()

    def stop(self) -> None:
        """Take no more: `run` returns when what is leaving has left."""
        self._stopping.set()
        self._woken.set()

    async def run(self) -> None:
        """Let leave what is due, until the stop."""
        while not self._stopping.is_set():
            self._woken.clear()
            self._sleeps_until = None  # from here on, whatever comes in is looked for again
            started = time.monotonic()
            try:
                left = await until_done(self.once, what="leaving", give_up=self._stopping)
                if left == self._batch:
                    seconds = left / self._rows_per_second - (time.monotonic() - started)
                    await set_within(self._stopping, seconds)
                elif self._room.full:
                    await set_within(self._stopping, ROOM_LOOK_SECONDS)
                else:
                    await self._sleep()
            except GivenUp:
                return

    async def once(self) -> int:
        """One batch: how many left."""
        # High priority leaves before it is asked for room, which is for what the resolver reads in its normal lane. In the high one little
        # comes at any time; should it be much, it may as well wait there, in the same order.
        left = await self._leave(await store.claim(self._pool, self._batch, self._now(), self._lease, high_only=True))
        if (limit := min(self._batch - left, await self._room.free())) > 0:
            due = await store.claim(self._pool, limit, self._now(), self._lease)
            self._room.take(len(due))
            left += await self._leave(due)
        return left

    async def _leave(self, due: Sequence[Arrival]) -> int:
        """Publish and settle what was claimed: how many that is."""
        if not due:
            return 0
        crash_point("scheduler.claim-publish")
        await self._publisher.publish_many([outgoing(each) for each in due])
        crash_point("scheduler.publish-mark")
        now = self._now()
        whole = [each.deferral.key for each in due if each.event is not None]
        erased = [each.deferral.key for each in due if each.event is None]  # else it would be claimed again for ever
        if erased:
            log.warning("texts of what was due were deleted", messages=len(erased))
        for outcome, keys in ((Outcome.RETURNED, whole), (Outcome.REJECTED, erased)):
            if keys:
                await store.settle(self._pool, keys, now, outcome)
                ENTRIES_SETTLED.labels(outcome).inc(len(keys))
        RETURN_DELAY.observe((now - due[0].deferral.due_at).total_seconds())
        return len(due)

    async def _sleep(self) -> None:
        """Until the next is due, at most until the next look."""
        first = await until_done(lambda: store.next_due(self._pool), what="leaving", give_up=self._stopping)
        now = self._now()
        until = now + timedelta(seconds=LOOK_SECONDS)
        self._sleeps_until = until if first is None else min(until, first)
        await set_within(self._woken, (self._sleeps_until - now).total_seconds())
