"""Leases and bind slots: who may send, judged by no clock but each instance's own monotonic one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import structlog

from libs.service_kit.transient import is_transient
from libs.storage.database import Pool

log = structlog.get_logger()

GRACE_SECONDS = 1.0
"""Peers call a lease over so much later than its holder, which then unbinds at once: if the provider answers that within this time, it
never sees a bind too many."""
BEATS = 5
"""So often in its length a lease is renewed, and its peers are looked at."""

# The slot that the instance has already, in case an earlier answer was lost; else the first that nobody holds, or whose holder is dead.
_TAKE_SLOT = """
INSERT INTO bind_slots (gateway, slot, instance)
SELECT $1, n, $3
  FROM generate_series(1, $2::int) AS n
  LEFT JOIN bind_slots s ON s.gateway = $1 AND s.slot = n
 WHERE s.instance = $3 OR NOT EXISTS (SELECT FROM instances i WHERE i.instance = s.instance AND NOT i.dead)
 ORDER BY coalesce(s.instance = $3, false) DESC, n
 LIMIT 1
ON CONFLICT (gateway, slot) DO UPDATE SET instance = EXCLUDED.instance
RETURNING slot
"""

_PEERS = """
SELECT instance, beat, bound, coalesce(lease_seconds, $3) AS lease_seconds,
       EXISTS (SELECT FROM bind_slots s WHERE (s.gateway, s.instance) = (i.gateway, i.instance)) AS has_slot
  FROM instances i WHERE gateway = $1 AND NOT dead AND instance <> $2
"""


class LeaseOver(Exception):
    """A peer has marked this instance dead, or its own clock says that the lease is over."""


@dataclass(slots=True)
class _Seen:
    beat: int
    since: float
    bound_since: float | None


class Lease:
    """An instance's right to write to the carrier. Once over it is never renewed."""

    def __init__(self, pool: Pool, gateway: str, seconds: float) -> None:
        self.instance: UUID = uuid4()
        self.bound = False
        """Whether it has a bind; peers hear of it with the next beat."""
        self.peer_stands_by = False
        """Whether a peer waits for a bind slot."""
        self._pool = pool
        self._gateway = gateway
        self._seconds = seconds
        self._valid_until = 0.0
        self._over = False
        self._postgres_said = datetime.min.replace(tzinfo=UTC)
        self._said_at = 0.0
        self._seen: dict[UUID, _Seen] = {}
        self._clock = asyncio.get_running_loop().time

    @property
    def valid(self) -> bool:
        """Whether this instance may write to the carrier now."""
        if not self._over and self._clock() >= self._valid_until:
            self._over = True
        return not self._over

    @property
    def postgres_time(self) -> datetime:
        """What Postgres's clock shows by now, or a little less: the time that it told last, and what the loop has counted since."""
        return self._postgres_said + timedelta(seconds=self._clock() - self._said_at)

    @property
    def peer_bound_seconds(self) -> float:
        """For how long a peer of the same gateway has had a bind, as far as is known here; 0 if none has."""
        since = min((seen.bound_since for seen in self._seen.values() if seen.bound_since is not None), default=None)
        return 0.0 if since is None else self._clock() - since

    def renewed(self, sent_at: float) -> None:
        """A renewal that was sent at `sent_at` (the loop's clock) was answered; every claim is a renewal too."""
        if self.valid:
            self._valid_until = max(self._valid_until, sent_at + self._seconds)

    def end(self) -> None:
        """A peer says that it is over."""
        self._over = True

    async def register(self) -> None:
        """Begin the lease. Deletes instances that died long ago."""
        sent_at = self._clock()
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("DELETE FROM instances WHERE dead AND started_at < now() - interval '1 day'")
            await connection.execute("INSERT INTO rates (gateway) VALUES ($1) ON CONFLICT DO NOTHING", self._gateway)
            self._hear(
                await connection.fetchval(
                    "INSERT INTO instances (instance, gateway, lease_seconds) VALUES ($1, $2, $3) RETURNING clock_timestamp()",
                    self.instance,
                    self._gateway,
                    self._seconds,
                )
            )
        self._valid_until = sent_at + self._seconds

    async def keep(self) -> None:
        """Renew it until it is over. Raises LeaseOver then, at once, even while Postgres leaves a renewal unanswered.

        Such a renewal is not waited for: to cancel a query may take as long as the query.
        """
        renewing = asyncio.create_task(self._beat_always())
        renewing.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            while self.valid and not renewing.done():
                await asyncio.wait([renewing], timeout=self._valid_until - self._clock())
            if not renewing.done():
                raise LeaseOver
            renewing.result()
        finally:
            renewing.cancel()

    async def beat(self) -> None:
        """Renew the lease, and mark dead the peers whose beat has stood still for their lease's length."""
        sent_at = self._clock()
        alive = await self._pool.fetchval(
            "UPDATE instances SET beat = beat + 1, bound = $2 WHERE instance = $1 AND NOT dead RETURNING true",
            self.instance,
            self.bound,
        )
        if alive is None:
            self._over = True
            return
        self.renewed(sent_at)
        # Not with the renewal: it is answered once it is committed, which may take long, and would tell the time from before that.
        self._hear(await self._pool.fetchval("SELECT clock_timestamp()"))
        await self._watch_peers()

    async def take_slot(self, allowed: int) -> int | None:
        """Take one of the slots, if one is free or its holder is dead; the same one again if it has one."""
        async with self._pool.acquire() as connection, connection.transaction():
            # One at a time: the next looks when this one has taken its slot.
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtext('dispatch.bind_slots'), hashtext($1))", self._gateway
            )
            return await connection.fetchval(_TAKE_SLOT, self._gateway, allowed, self.instance)

    async def release(self) -> None:
        """End the lease in order, and with it the hold on a slot: nothing of this instance is under way any more, its bind is closed."""
        self._over = True
        await self._pool.execute("UPDATE instances SET dead = true WHERE instance = $1", self.instance)

    async def _beat_always(self) -> None:
        while True:
            try:
                await self.beat()
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("lease not renewed", reason=type(error).__name__)
            if not self.valid:
                raise LeaseOver
            await asyncio.sleep(self._seconds / BEATS)

    def _hear(self, said: datetime) -> None:
        self._postgres_said, self._said_at = said, self._clock()

    async def _watch_peers(self) -> None:
        rows = await self._pool.fetch(_PEERS, self._gateway, self.instance, self._seconds)
        now = self._clock()
        seen: dict[UUID, _Seen] = {}
        for row in rows:
            peer, beat = row["instance"], row["beat"]
            before = self._seen.get(peer)
            since = before.since if before is not None and before.beat == beat else now
            bound_since = before.bound_since if before is not None else None
            seen[peer] = _Seen(beat, since, (bound_since or now) if row["bound"] else None)
            if now - seen[peer].since >= row["lease_seconds"] + GRACE_SECONDS:
                marked = await self._pool.fetchval(
                    "UPDATE instances SET dead = true WHERE instance = $1 AND beat = $2 RETURNING true", peer, beat
                )
                if marked:
                    log.warning("peer marked dead", peer=str(peer), silent_seconds=round(now - seen[peer].since, 1))
        self._seen = seen
        self.peer_stands_by = not all(row["has_slot"] for row in rows)
