"""Backpressure from the provider: pause after a refusal for its rate or its queue, then ask with one part before going on."""

from __future__ import annotations

import random

FIRST_SECONDS = 0.5
LAST_SECONDS = 30.0


class Throttle:
    """Longer with each refusal in a row, with jitter so that replicas do not come back in step; over at the first acceptance."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._until = 0.0

    @property
    def active(self) -> bool:
        """Whether the last answer was a refusal: one part at a time may ask."""
        return self._seconds > 0

    def refused(self, now: float) -> None:
        """The provider said that it takes nothing now."""
        if now < self._until:
            return  # refusals of one burst are one
        self._seconds = min(max(self._seconds * 2, FIRST_SECONDS), LAST_SECONDS)
        self._until = now + self._seconds * (0.5 + random.random() / 2)  # noqa: S311 - jitter, not a secret

    def accepted(self, now: float) -> None:
        """The provider takes messages; an answer to what was sent before the refusal says nothing."""
        if now >= self._until:
            self._seconds = 0.0

    def wait(self, now: float) -> float:
        """Seconds during which nothing should be sent."""
        return max(self._until - now, 0.0)
