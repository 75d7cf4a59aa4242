"""Tells a gateway that is at fault from messages that are: by many of them, one after the other, refused for now or not answered."""

from __future__ import annotations

from uuid import UUID

OPENS_AT = 20
"""Different messages in a row: more than are likely to be refused for a reason of their own while all others wait."""


class Breaker:
    """Open after `OPENS_AT` failures in a row, until the provider takes a message, or refuses one for good."""

    def __init__(self) -> None:
        self._failing: set[UUID] = set()

    @property
    def open(self) -> bool:
        return len(self._failing) >= OPENS_AT

    def failed(self, message_id: UUID) -> None:
        """A message was refused for now, or not answered."""
        if not self.open:
            self._failing.add(message_id)

    def worked(self) -> None:
        """The provider said of a message what becomes of it."""
        self._failing.clear()
