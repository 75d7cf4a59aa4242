"""How far apart batches are: one costs much the same whatever its size, so a small one waits for company."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pacing:
    """The least time from one batch's fetch to the next, by the size of the first: seconds, growing evenly up to `full_at` records.

    Where a batch could have had `most` records, it shrinks again from half of them on, and is nothing for a full batch: there is a backlog.
    """

    floor: float = 0.030
    ceiling: float = 0.120
    full_at: int = 60

    def seconds(self, records: int, most: int | None = None) -> float:
        pause = self.floor + (self.ceiling - self.floor) * min(1.0, records / self.full_at)
        return pause if most is None else pause * max(0.0, min(1.0, 2 - 2 * records / most))


PACED = Pacing()
UNPACED = Pacing(0, 0)
UNHURRIED = Pacing(floor=0.1)
"""For consumers whose work no message waits for."""
