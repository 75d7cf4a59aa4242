"""The submits of one session that have no answer yet. No I/O, no clock: the caller says what time it is."""

from __future__ import annotations

from typing import Final

MAX_REMEMBERED: Final = 10_000
"""How many timed-out submits stay known for a late answer: about 15 MB with their messages. Beyond it the oldest is forgotten; its
message stays in doubt until its receipt."""


class Window:
    """Sequence number to token, in the order sent. A submit leaves when it is answered, or when its time is over; then it
    takes no room any longer but is remembered, since an answer may still come."""

    def __init__(self, size: int, timeout_seconds: float) -> None:
        self._size = size
        self._timeout_seconds = timeout_seconds
        self._open: dict[int, tuple[object, float]] = {}
        """Token and the end of its time. Ends ascend, since entries are in the order sent."""
        self._late: dict[int, object] = {}

    @property
    def in_flight(self) -> int:
        """How many wait for an answer in time."""
        return len(self._open)

    @property
    def free(self) -> int:
        """How many more may be sent."""
        return self._size - len(self._open)

    def add(self, sequence: int, token: object, now: float) -> None:
        """Take one in, at `now` seconds."""
        self._open[sequence] = (token, now + self._timeout_seconds)

    def take(self, sequence: int) -> object:
        """The token that `sequence` answers, in time or late; then it leaves. KeyError when there is none."""
        entry = self._open.pop(sequence, None)
        return entry[0] if entry is not None else self._late.pop(sequence)

    def expire(self, now: float) -> list[object]:
        """The tokens whose time is over by `now`; each is told once."""
        expired: list[int] = []
        for sequence, (_, end) in self._open.items():
            if end > now:
                break
            expired.append(sequence)
        tokens: list[object] = []
        for sequence in expired:
            token = self._late[sequence] = self._open.pop(sequence)[0]
            tokens.append(token)
        while len(self._late) > MAX_REMEMBERED:
            del self._late[next(iter(self._late))]
        return tokens

    def close(self) -> list[object]:
        """The tokens still in flight, now that no answer can come any more."""
        tokens = [token for token, _ in self._open.values()]
        self._open.clear()
        self._late.clear()
        return tokens
