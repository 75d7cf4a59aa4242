"""Parts that are claimed one after the other, and a claim whose answer is late, on a real Postgres: their record waits for all of them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest

from libs.bus.port import Outgoing
from libs.bus.record import Record
from libs.service_kit.config_file import SmppGateway
from libs.storage.database import Pool
from services.dispatcher.attempts import LegState, Outcome
from services.dispatcher.board import Board
from services.dispatcher.drivers.port import Result, Submission, Verdict
from services.dispatcher.lease import Lease
from services.dispatcher.ledger import Claim, ClaimVerdict, Ledger
from services.dispatcher.sender import Sender
from services.dispatcher.settler import Settler
from tests.services.dispatcher.builders import GATEWAY, dispatch_event, record_of
from tests.waiting import until

CONFIGURED = SmppGateway(id=GATEWAY, type="smpp", host="unused", port=1, system_id="unused")
AN_HOUR_US = 3_600_000_000


@pytest.fixture
async def lease(pool: Pool) -> Lease:
    """One that outlasts a slow machine: nothing renews it but claims."""
    made = Lease(pool, GATEWAY, 60)
    await made.register()
    return made


class SlowAnswers(Ledger):
    """A ledger whose claims are done at once, and answered when they may be."""

    def __init__(self, pool: Pool, lease: Lease, interval_us: int) -> None:
        super().__init__(pool, GATEWAY, lease.instance, interval_us)
        self.claims = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def claim(self, claim: Claim, age_seconds: float) -> list[ClaimVerdict]:
        verdicts = await super().claim(claim, age_seconds)
        self.claims += 1
        await self.may_answer.wait()
        return verdicts


class Ground:
    """A sender and a settler with a message of two parts, and a driver that has room for one."""

    def __init__(self, pool: Pool, lease: Lease, interval_us: int) -> None:
        self.event = dispatch_event("x" * 200)
        self.ledger = SlowAnswers(pool, lease, interval_us)
        self.free = 1
        self.missing = None
        self.written: dict[int, object] = {}
        self.record = record_of(self.event)
        self.done: list[Record] = []
        board, anything = Board(), cast(Any, self)
        board.add(self.event, self.record)
        self.settler = Settler(CONFIGURED, self.ledger, board, anything, self.done.extend, lambda: self.sender.wake())
        self.sender = Sender(CONFIGURED, lease, self.ledger, board, anything, self.settler.take, self.settler.look)

    def submit(self, submissions: Sequence[Submission]) -> None:
        self.written |= {submission.part: submission.token for submission in submissions}
        self.free = 0

    async def publish_many(self, outgoing: Sequence[Outgoing]) -> None:
        pass

    async def answer(self, part: int, verdict: Verdict) -> None:
        """The carrier's word for a part, until it is stored and what follows from it is done."""
        results = [Result(self.written[part], verdict)]
        self.sender.judge(results)
        self.settler.take(results)
        await until(lambda: self.settler.idle)

    async def outcomes(self) -> dict[int, Outcome | None]:
        """What is stored of each part."""
        leg = LegState(self.event)
        return {attempt.part: attempt.outcome for attempt in (await self.ledger.read([leg]))[leg.key]}


@asynccontextmanager
async def open_claim(
    pool: Pool, lease: Lease, interval_us: int = 0
) -> AsyncIterator[tuple[Ground, asyncio.Task[None]]]:
    """Part 1 is written, and the claim of part 2 is done and not answered."""
    ground = Ground(pool, lease, interval_us)
    settling, sending = asyncio.create_task(ground.settler.run()), asyncio.create_task(ground.sender.run())
    try:
        await until(lambda: ground.written)
        ground.ledger.may_answer.clear()
        ground.free = 1
        ground.sender.wake()
        await until(lambda: ground.ledger.claims == 2)
        yield ground, sending
    finally:
        await ended(sending)
        await ended(settling)


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_record_waits_for_the_outcome_of_a_part_whose_grant_is_not_heard_of_yet(pool: Pool, lease: Lease):
    async with open_claim(pool, lease) as (ground, _):
        await ground.answer(1, Verdict.FAILED)
        assert await ground.outcomes() == {1: Outcome.FAILED, 2: None}
        assert ground.done == []
        assert ground.sender.in_flight == 1, "a stop waits for what may have been granted"
        ground.ledger.may_answer.set()
        await until(lambda: 2 in ground.written)
        assert ground.done == []
        await ground.answer(2, Verdict.ACCEPTED)
        assert await ground.outcomes() == {1: Outcome.FAILED, 2: Outcome.ACCEPTED}
        assert ground.done == [ground.record]


async def test_a_record_is_done_when_the_claim_that_it_waited_for_has_granted_nothing(pool: Pool, lease: Lease):
    async with open_claim(pool, lease, AN_HOUR_US) as (ground, _):
        await ground.answer(1, Verdict.FAILED)
        assert await ground.outcomes() == {1: Outcome.FAILED}
        assert ground.done == []
        ground.ledger.may_answer.set()
        await until(lambda: ground.done == [ground.record])


async def test_a_record_whose_claim_ends_unanswered_is_left_to_who_calls_its_part_in_doubt(pool: Pool, lease: Lease):
    async with open_claim(pool, lease) as (ground, sending):
        await ended(sending)
        await ground.answer(1, Verdict.FAILED)
        assert ground.done == []
        await lease.release()
        assert await ground.ledger.declare_doubt([LegState(ground.event)]) == 1
        assert await ground.outcomes() == {1: Outcome.FAILED, 2: Outcome.DOUBT_BY_PEER}
