"""Judges, by what has come of it lately, whether it pays that records wait for others of their message."""

from __future__ import annotations

from collections.abc import Callable

WEIGHED_EVERY_SECONDS = 5.0
"""About as long as a message is kept back at most, so that most of what was kept is counted."""
IN_VAIN_SECONDS = 30.0
"""For how long ends do not wait any more, where more of them waited in vain than not."""


class Weighing:
    """The two verdicts, and what they are made of: whoever keeps records back counts what becomes of them."""

    def __init__(self) -> None:
        self.worth_waiting = True
        """Most messages end while they are kept back: not so before a slow gateway."""
        self.ends_wait = True
        """Ends that wait for their beginning mostly meet it: not so where the two come to different replicas."""
        # Since the last verdict:
        self.ended = 0
        """Records handed on with the end or the deferral of their message."""
        self.aged = 0
        """Records handed on because their time was over."""
        self.met = 0
        """Ends and deferrals that met their beginning, or would have if they had waited."""
        self.in_vain = 0
        """Ends and deferrals that waited, and did not meet it."""
        self._weighed_at = 0.0
        self._ends_wait_from = 0.0

    def weigh(self, now: float, overdue: Callable[[], int]) -> None:
        """Judge anew if it is time to. `overdue` says how many records are kept that should have been handed on: they count as aged."""
        if now - self._weighed_at < WEIGHED_EVERY_SECONDS:
            return
        self.worth_waiting = self.ended >= self.aged + overdue()
        if self.met < self.in_vain:
            self._ends_wait_from = now + IN_VAIN_SECONDS
        elif self.met > self.in_vain:
            self._ends_wait_from = now
        self.ends_wait = now >= self._ends_wait_from
        self._weighed_at = now
        self.ended = self.aged = self.met = self.in_vain = 0
