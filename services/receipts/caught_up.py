"""Whether the group has consumed all that was there some time ago: until then, what it has not seen may still be on its way."""

from __future__ import annotations

from libs.bus.group_progress import GroupProgress
from libs.bus.port import Offsets


class CaughtUp:
    """Compares what the group has committed with the ends that were found when it was last asked."""

    def __init__(self, progress: GroupProgress) -> None:
        self._progress = progress
        self._ends: Offsets | None = None

    async def __call__(self) -> bool:
        """Whether what Kafka held at the call before is all committed; False at the first. Raises KafkaError, or TimeoutError."""
        before, self._ends = self._ends, await self._progress.ends()
        return before is not None and await self._progress.behind(before) == 0
