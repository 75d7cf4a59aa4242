"""A system_id: its bound sessions, and what is to be delivered to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from services.simulated_carrier.delivery import Delivery
from services.simulated_carrier.session import Session


class Account:
    """deliver_sm are held until a session that receives is bound and has room in its window; then they leave in order,
    spread over the sessions. What comes back (refused, unanswered) is simply held again.
    """

    def __init__(self, system_id: str) -> None:
        self.system_id = system_id
        self.sessions: list[Session] = []
        self._held: deque[Delivery] = deque()

    @property
    def held(self) -> int:
        return len(self._held)

    def hold(self, messages: Iterable[Delivery]) -> None:
        """Puts messages behind those that wait."""
        self._held.extend(messages)

    def hold_first(self, messages: list[Delivery]) -> None:
        """Puts messages that had left already in front of those that wait."""
        self._held.extendleft(reversed(messages))

    def pump(self, window: int) -> int:
        """Sends what the windows (unanswered deliver_sm per session) have room for; gives how many went."""
        sent = 0
        for session in self.sessions:
            if not self._held:
                break
            count = min(session.room(window), len(self._held))
            if count:
                session.deliver([self._held.popleft() for _ in range(count)])
                sent += count
        if len(self.sessions) > 1:
            self.sessions.append(self.sessions.pop(0))
        return sent


class Redelivery(NamedTuple):
    """A refused deliver_sm that is due again later."""

    account: Account
    message: Delivery
