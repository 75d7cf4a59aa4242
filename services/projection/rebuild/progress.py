"""How far a long work has come, a line a second."""

from __future__ import annotations

import time
from collections.abc import Callable

LINE_SECONDS = 1.0


class Progress:
    """`what` is a past participle, as in "folded". `total` is how many messages there were at the beginning."""

    def __init__(self, what: str, total: int, say: Callable[[str], None]) -> None:
        self._what = what
        self._total = total
        self._say = say
        self._done = 0
        self._started = self._said = time.monotonic()

    def reached(self, done: int) -> None:
        """So many by now."""
        self._done = done
        now = time.monotonic()
        if now - self._said < LINE_SECONDS:
            return
        self._said = now
        rate = done / (now - self._started)
        left = max(0, self._total - done)
        percent = 100 * done // max(done, self._total, 1)
        self._say(
            f"{percent:3} %  {self._what} {done:,} of {self._total:,} messages, {rate:,.0f}/s, {left / max(rate, 1):,.0f} s left"
        )

    def end(self) -> None:
        """No more will come."""
        self._say(f"{self._what} {self._done:,} messages in {time.monotonic() - self._started:.1f} s")
