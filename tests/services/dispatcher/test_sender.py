"""What was granted is written at its moment or not at all: never late where there is a rate, never past the lease or its validity. No
server takes part."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from libs.service_kit.config_file import SmppGateway
from services.dispatcher.board import Board
from services.dispatcher.drivers.port import Result, Submission, Verdict
from services.dispatcher.lease import LeaseOver
from services.dispatcher.ledger import Claim, ClaimVerdict
from services.dispatcher.sender import LONGEST_LEAD_SECONDS, NOTHING_GRANTED_SECONDS, Sender
from tests.services.dispatcher.builders import GATEWAY, dispatch_event, record_of


class Ground:
    """A sender with one message, whose claim takes `answer_seconds` and grants it `leave` seconds after it was sent.

    Its clock stands still but for that and for what a test adds; its timer fires when a test calls it.
    """

    def __init__(self, leave: float, answer_seconds: float = 0, rate: int = 100) -> None:
        self.now = 1000.0
        self.leave = leave
        self.answer_seconds = answer_seconds
        self.renewals: list[float] = []
        self.lease = SimpleNamespace(
            valid=True,
            instance=uuid4(),
            renewed=self.renewals.append,
            end=lambda: setattr(self.lease, "valid", False),
            postgres_time=datetime.now(UTC),
        )
        self.lease_after_claim = True
        self.grants: int | None = None
        """How many parts of a claim; None for all."""
        self.letter = "G"
        self.faults: list[Exception] = []
        self.claims: list[tuple[int, bool, float]] = []
        self.leads: list[float] = []
        self.fire: Callable[[], None] | None = None
        self.written: list[Submission] = []
        self.told: list[Result] = []
        gateway = SmppGateway(
            id=GATEWAY, type="smpp", host="unused", port=1, system_id="unused", segments_per_second=rate
        )
        self.board = board = Board()
        self.another()
        self.driver: Any = SimpleNamespace(free=10, missing=None, submit=self.written.extend)
        ground: Any = self
        self.sender = Sender(gateway, ground.lease, ground, board, self.driver, self.told.extend, lambda _: None)
        self.sender._loop = ground

    def another(self, text: str = "hello") -> None:
        event = dispatch_event(text)
        self.board.add(event, record_of(event))

    def time(self) -> float:
        return self.now

    def call_at(self, _: float, callback: Callable[[], None]) -> SimpleNamespace:
        self.fire = callback
        return SimpleNamespace(cancel=lambda: None)

    def wake_after(self, seconds: float) -> None:
        """The moment comes for which the sender asked to be called."""
        self.now += seconds
        assert self.fire
        self.fire()

    async def claim(self, claim: Claim, age_seconds: float) -> list[ClaimVerdict]:
        self.claims.append((claim.number, claim.repeated, age_seconds))
        self.leads.append(claim.lead_seconds)
        self.now += self.answer_seconds
        if self.faults:
            raise self.faults.pop()
        self.lease.valid = self.lease_after_claim
        return [ClaimVerdict(ask, self.letter, self.leave + claim.lead_seconds) for ask in claim.asks[: self.grants]]

    @property
    def became(self) -> tuple[int, list[Verdict]]:
        """How much was written, and what was told."""
        return len(self.written), [result.verdict for result in self.told]


WRITTEN, NOT_SENT = (1, []), (0, [Verdict.NOT_SENT])
CASES = pytest.mark.parametrize(
    ("late", "lease_valid", "expected"),
    [(0.0, True, WRITTEN), (0.25, True, WRITTEN), (0.375, True, NOT_SENT), (0.0, False, NOT_SENT)],
)


@CASES
async def test_what_may_leave_at_once_is_written_only_in_time_and_under_a_valid_lease(
    late: float, lease_valid: bool, expected: tuple[int, list[Verdict]]
):
    ground = Ground(leave=0, answer_seconds=late)
    ground.lease_after_claim = lease_valid
    await ground.sender.turn()
    assert ground.became == expected


async def test_without_a_rate_a_slow_claim_keeps_nothing_from_leaving():
    ground = Ground(leave=0, answer_seconds=3, rate=0)
    await ground.sender.turn()
    assert ground.became == WRITTEN


async def test_after_a_claim_whose_answer_came_too_late_the_next_asks_for_moments_as_far_ahead():
    ground = Ground(leave=0, answer_seconds=0.5)
    await ground.sender.turn()
    assert ground.became == NOT_SENT
    ground.another()
    await ground.sender.turn()
    assert ground.became == (1, [Verdict.NOT_SENT])


async def test_no_claim_asks_for_moments_that_the_rate_clock_would_take_for_a_jump():
    ground = Ground(leave=0, answer_seconds=3)
    await ground.sender.turn()
    ground.another()
    await ground.sender.turn()
    assert ground.leads == [0, LONGEST_LEAD_SECONDS]


async def test_once_claims_are_fast_again_moments_begin_at_once():
    ground = Ground(leave=0, answer_seconds=0.2)
    await ground.sender.turn()
    ground.answer_seconds = 0
    for _ in range(6):
        ground.another()
        await ground.sender.turn()
        if ground.sender._scheduled:
            ground.wake_after(0.2)
    assert ground.became == (7, [])
    assert ground.now == pytest.approx(1001.2), "five waited, the last did not"


@CASES
async def test_what_waits_for_its_moment_is_written_only_in_time_and_under_a_valid_lease(
    late: float, lease_valid: bool, expected: tuple[int, list[Verdict]]
):
    ground = Ground(leave=0.125)
    await ground.sender.turn()
    assert ground.became == (0, []), "not before"
    ground.lease.valid = lease_valid
    ground.wake_after(0.125 + late)
    assert ground.became == expected


async def test_what_waits_for_its_moment_at_the_stop_is_told_not_sent_and_no_doubt():
    ground = Ground(leave=0.125)
    await ground.sender.turn()
    ground.sender.withdraw()
    assert ground.became == NOT_SENT
    ground.wake_after(0.125)
    assert ground.became == NOT_SENT


async def test_what_waits_for_its_moment_has_its_place_in_the_window():
    ground = Ground(leave=0.125)
    ground.driver.free = 1
    await ground.sender.turn()
    ground.another()
    await ground.sender.turn()
    assert ground.sender.in_flight == 1


@pytest.mark.parametrize(("passed", "expected"), [(timedelta(), WRITTEN), (timedelta(hours=2), NOT_SENT)])
async def test_what_waits_for_its_moment_is_written_only_while_it_is_valid(
    passed: timedelta, expected: tuple[int, list[Verdict]]
):
    ground = Ground(leave=0.125)
    await ground.sender.turn()
    ground.lease.postgres_time += passed
    ground.wake_after(0.125)
    assert ground.became == expected


async def test_a_claim_without_an_answer_is_sent_again_as_the_same_and_renews_the_lease_from_then_on():
    ground = Ground(leave=0, answer_seconds=0.0625)
    ground.faults = [TimeoutError(), TimeoutError()]
    await ground.sender.turn()
    assert ground.claims == [(1, False, 0), (1, True, 0.0625), (1, True, 0.125)]
    assert ground.renewals == [1000.125]
    assert ground.became == WRITTEN


async def test_a_claim_that_a_peer_has_forestalled_ends_the_lease_and_what_waits_is_not_sent():
    ground = Ground(leave=0.125)
    await ground.sender.turn()
    ground.another()
    ground.faults = [LeaseOver()]
    with pytest.raises(LeaseOver):
        await ground.sender.turn()
    ground.wake_after(0.125)
    assert ground.became == NOT_SENT


async def test_what_was_not_granted_is_asked_for_again_a_little_later():
    ground = Ground(leave=0)
    ground.another()
    ground.grants = 1
    await ground.sender.turn()
    await ground.sender.turn()
    assert ground.became == WRITTEN
    ground.now += NOTHING_GRANTED_SECONDS
    await ground.sender.turn()
    assert ground.became == (2, [])


async def test_the_rest_of_a_message_whose_part_was_refused_is_claimed_only_after_it_could_be_looked_at():
    ground = Ground(leave=0, rate=0)
    await ground.sender.turn()
    ground.another("x" * 161)
    ground.driver.free, ground.letter = 1, "C"
    for _ in range(3):
        await ground.sender.turn()
    assert len(ground.claims) == 2
    ground.now += NOTHING_GRANTED_SECONDS
    await ground.sender.turn()
    assert len(ground.claims) == 3


async def test_without_a_lease_it_claims_nothing_and_ends():
    ground = Ground(leave=0)
    ground.lease.valid = False
    with pytest.raises(LeaseOver):
        await asyncio.wait_for(ground.sender.run(), 60)
    assert ground.claims == []
