"""Decides, submit by submit and bind by bind, what the behaviour in force asks for, and counts its countdowns down."""

from __future__ import annotations

import random
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeVar

from libs.smpp.status import CommandStatus
from services.simulated_carrier.behaviour import Behaviour, Drop, ReceiptState, Refusals, Silence, Throttle

_SECOND_US: Final = 1_000_000

_Value = TypeVar("_Value")


class Verdict(NamedTuple):
    """What becomes of a submit."""

    accepted: bool
    command_status: int | None
    """what is answered; None: nothing is"""
    drops_connection: bool = False


ACCEPT: Final = Verdict(accepted=True, command_status=0)
THROTTLE: Final = Verdict(accepted=False, command_status=CommandStatus.ESME_RTHROTTLED)
_DROPS: Final = {
    "before_accept": Verdict(accepted=False, command_status=None, drops_connection=True),
    "after_accept": Verdict(accepted=True, command_status=None, drops_connection=True),
    "after_response": Verdict(accepted=True, command_status=0, drops_connection=True),
}


def steady_us() -> int:
    """µs of a clock that only goes forward, whatever the machine's is set to."""
    return time.monotonic_ns() // 1_000


class Steering:
    """Holds the behaviour in force. Times are those of `steady_us`."""

    def __init__(self, initial: Behaviour, chance: random.Random, now_us: int) -> None:
        self.initial = initial
        """what the carrier was started with"""
        self._chance = chance
        self._accepted_at: defaultdict[str, deque[int]] = defaultdict(deque)
        self.set(initial, now_us)

    def set(self, behaviour: Behaviour, now_us: int) -> None:
        """Puts a behaviour in force; its `refuse_for_ms` counts from now."""
        self.behaviour = behaviour.model_copy(deep=True)
        self._refuse_binds_until = now_us + behaviour.binds.refuse_for_ms * 1_000
        outcomes = behaviour.receipts.outcomes
        self._states = list(outcomes)
        self._weights = list(outcomes.values())
        # All of these at their defaults: every submit is accepted and answered, until the next behaviour is set.
        self._takes_all = (
            behaviour.drop == Drop()
            and behaviour.refusals == Refusals()
            and behaviour.throttle == Throttle()
            and behaviour.silence == Silence()
        )

    def shown(self, now_us: int) -> Behaviour:
        """The behaviour in force with what is left of its countdowns."""
        left_ms = -(-(self._refuse_binds_until - now_us) // 1_000)
        self.behaviour.binds.refuse_for_ms = max(0, left_ms)
        return self.behaviour

    def judge_bind(self, bound: int, now_us: int) -> int:
        """The command_status for a bind of a system_id that holds `bound` binds already; 0 grants it."""
        binds = self.behaviour.binds
        if now_us < self._refuse_binds_until:
            return binds.command_status
        if binds.refuse_next:
            binds.refuse_next -= 1
            return binds.command_status
        if binds.max_per_system_id and bound >= binds.max_per_system_id:
            return CommandStatus.ESME_RALYBND
        return 0

    def judge_submit(self, system_id: str, destination: str, now_us: int) -> Verdict:
        if self._takes_all:
            return ACCEPT
        behaviour = self.behaviour
        drop = behaviour.drop
        if drop.after is not None:
            if drop.after == 1:
                drop.after = None
                return _DROPS[drop.point]
            drop.after -= 1
        refused = self._refusal(destination)
        if refused:
            return Verdict(accepted=False, command_status=refused)
        rate = behaviour.throttle.segments_per_second
        if rate and not self._within_rate(system_id, rate, now_us):
            return THROTTLE
        silence = behaviour.silence
        if silence.next:
            silence.next -= 1
            return Verdict(accepted=silence.accept, command_status=None)
        if silence.probability and self._chance.random() < silence.probability:
            return Verdict(accepted=silence.accept, command_status=None)
        return ACCEPT

    def outcome(self, destination: str) -> ReceiptState:
        """The final state that the receipt of a message reports."""
        by_suffix = self.behaviour.receipts.outcome_by_suffix
        if by_suffix:
            state = _longest_suffix(by_suffix, destination)
            if state is not None:
                return state
        if len(self._states) == 1:
            return self._states[0]
        return self._chance.choices(self._states, self._weights)[0]

    def receipt_delay(self) -> float:
        """Seconds from accepting a message to its final receipt."""
        receipts = self.behaviour.receipts
        jitter_ms = self._chance.uniform(0, receipts.jitter_ms) if receipts.jitter_ms else 0
        return (receipts.delay_ms + jitter_ms) / 1_000

    def _refusal(self, destination: str) -> int:
        refusals = self.behaviour.refusals
        if refusals.next:
            refusals.next -= 1
            return refusals.command_status
        if refusals.by_suffix:
            status = _longest_suffix(refusals.by_suffix, destination)
            if status is not None:
                return status
        if refusals.probability and self._chance.random() < refusals.probability:
            return refusals.command_status
        return 0

    def _within_rate(self, system_id: str, rate: int, now_us: int) -> bool:
        """Whether one more segment keeps the last second at `rate` or fewer; if so it is counted."""
        accepted_at = self._accepted_at[system_id]
        while accepted_at and accepted_at[0] <= now_us - _SECOND_US:
            accepted_at.popleft()
        if len(accepted_at) >= rate:
            return False
        accepted_at.append(now_us)
        return True


def _longest_suffix(by_suffix: Mapping[str, _Value], destination: str) -> _Value | None:
    matching = [suffix for suffix in by_suffix if destination.endswith(suffix)]
    return by_suffix[max(matching, key=len)] if matching else None
