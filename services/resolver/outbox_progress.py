"""Up to which moment the outbox knows what was decided. It learns of a decision by way of Kafka, and may be far behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from libs.bus.group_progress import GroupProgress
from libs.bus.port import Offsets
from libs.storage.database import Pool

# Now, or when the oldest open transaction began: it may be changing a contact, and until it commits, what was before is decided with.
_MOMENT = """
SELECT least(clock_timestamp(), min(xact_start)) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = current_setting('application_name') AND pid <> pg_backend_pid()
"""


class OutboxProgress:
    """Compares what Kafka held at a moment with what has been done about it since, in two steps.

    What was asked for by then must be decided: `deciding` are the resolver's groups, which commit when a decision is published. And what
    was published by then must be folded: `folding` is the projection's group.
    """

    def __init__(self, pool: Pool, deciding: Sequence[GroupProgress], folding: GroupProgress) -> None:
        self.known_until: datetime | None = None
        """By Postgres's clock: every decision that was made before is in the outbox. None: that is not known of any."""
        self._pool = pool
        self._deciding = deciding
        self._folding = folding
        self._moment: datetime | None = None
        self._asked_for: list[Offsets] = []
        self._published: Offsets | None = None

    async def look(self) -> None:
        """Go as far as can be said now. Raises KafkaError, TimeoutError, asyncpg's and the system's errors."""
        now: datetime = await self._pool.fetchval("SELECT clock_timestamp()")
        if any(known is not None and known > now for known in (self.known_until, self._moment)):
            self.known_until = self._moment = self._published = None  # another server by now, whose clock is behind
        if self._moment is None:
            moment: datetime = await self._pool.fetchval(_MOMENT)
            self._asked_for = [await group.ends() for group in self._deciding]
            self._moment = moment
        if self._published is None:
            for group, ends in zip(self._deciding, self._asked_for, strict=True):
                if await group.behind(ends):
                    return
            self._published = await self._folding.ends()
        if await self._folding.behind(self._published) == 0:
            self.known_until, self._moment, self._published = self._moment, None, None
