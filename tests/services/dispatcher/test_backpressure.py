"""When the sender asks for more, and when it holds back. No Kafka, no Postgres, no carrier."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import Counter, Gauge

from libs.contracts.events import Priority
from libs.service_kit.config_file import SmppGateway
from libs.service_kit.metrics import BREAKER_OPEN, CLAIMED, IN_FLIGHT, THROTTLES
from services.dispatcher.attempts import Attempt, LegState
from services.dispatcher.board import Board
from services.dispatcher.breaker import OPENS_AT
from services.dispatcher.drivers.port import Result, Verdict
from services.dispatcher.ledger import Claim, ClaimVerdict
from services.dispatcher.sender import LARGEST_CLAIM, Sender, Sent
from services.dispatcher.throttle import LAST_SECONDS
from tests.services.dispatcher.builders import dispatch_event, record_of


class Ground:
    """A sender whose claims are granted at once, and a driver that writes nothing."""

    def __init__(self, window: int, free: int) -> None:
        given = {"id": "demo", "type": "smpp", "host": "h", "port": 1, "system_id": "s", "window": window}
        self.lease: Any = SimpleNamespace(
            valid=True, instance=uuid4(), renewed=lambda _: None, postgres_time=datetime.now(UTC)
        )
        self.claimed: list[Claim] = []
        self.driver: Any = SimpleNamespace(free=free, missing=None, submit=lambda _: None)
        self.board = Board()
        ledger: Any = self
        self.sender = Sender(
            SmppGateway.model_validate(given),
            self.lease,
            ledger,
            self.board,
            self.driver,
            lambda _: None,
            lambda _: None,
        )

        self.waited = 0.0
        loop = asyncio.get_running_loop()
        self.sender._loop = SimpleNamespace(time=lambda: loop.time() + self.waited, call_at=loop.call_at)  # type: ignore[assignment]

    async def claim(self, claim: Claim, age_seconds: float) -> list[ClaimVerdict]:
        self.claimed.append(claim)
        return [ClaimVerdict(ask, "G", 0.0) for ask in claim.asks]

    def add(self, valid_seconds: float = 3600, priority: Priority = Priority.NORMAL) -> None:
        event = dispatch_event(valid_seconds=valid_seconds, priority=priority)
        self.board.add(event, record_of(event))

    async def turn(self) -> int:
        """One turn of the sender: how many parts it asked for."""
        before = len(self.claimed)
        await self.sender.turn()
        return sum(len(claim.asks) for claim in self.claimed[before:])

    def answer(self, verdict: Verdict, messages: int = 1) -> list[Result]:
        """Results for so many messages of their own."""
        legs = [LegState(dispatch_event()) for _ in range(messages)]
        results = [Result(Sent(leg, Attempt(1, 1, uuid4()), 0.0), verdict) for leg in legs]
        self.sender.judge(results)
        return results


def shown(metric: Counter | Gauge = BREAKER_OPEN) -> float:
    [collected] = metric.collect()
    return next((sample.value for sample in collected.samples if sample.labels == {"gateway": "demo"}), 0)


@pytest.mark.parametrize(("window", "waiting"), [(10_000, 1_500), (2_002, 1_001), (100, 500)])
async def test_an_empty_window_is_filled_however_large_it_is_and_however_many_wait(window: int, waiting: int):
    ground = Ground(window, free=window)
    for _ in range(waiting):
        ground.add()
    before, asked = shown(CLAIMED), min(window, waiting, LARGEST_CLAIM)
    assert await ground.turn() == asked
    ground.answer(Verdict.ACCEPTED)
    assert (shown(CLAIMED) - before, shown(IN_FLIGHT)) == (asked, asked)


async def test_who_pauses_asks_for_nothing_not_even_for_what_has_expired():
    ground = Ground(window=100, free=100)
    ground.add()
    ground.add(valid_seconds=-60)
    ground.sender.pause()
    assert await ground.turn() == 0
    ground.sender.resume()
    assert [await ground.turn(), await ground.turn()] == [1, 1]


async def test_a_claim_waits_until_half_the_window_is_free_unless_something_is_urgent():
    ground = Ground(window=100, free=40)
    for _ in range(60):
        ground.add()
    assert await ground.turn() == 0
    ground.add(priority=Priority.HIGH)
    assert await ground.turn() == 40


async def test_after_a_refusal_for_its_rate_the_gateway_is_asked_with_one_part_at_a_time_until_it_takes_one():
    ground, before = Ground(window=100, free=100), shown(THROTTLES)
    for _ in range(4):
        ground.add()
    refused = ground.answer(Verdict.THROTTLED)
    assert [r.verdict for r in refused] == [Verdict.THROTTLED]
    assert shown(THROTTLES) == before + 1
    assert await ground.turn() == 0, "it pauses"
    ground.waited += LAST_SECONDS
    ground.driver.free = 0
    assert await ground.turn() == 0, "nothing can be written"
    ground.driver.free = 100
    assert await ground.turn() == 1
    assert await ground.turn() == 0, "that one is not answered yet"
    ground.sender.judge([Result(sent, Verdict.THROTTLED) for sent in ground.sender._unanswered])
    ground.waited += LAST_SECONDS
    assert await ground.turn() == 1
    ground.sender.judge([Result(sent, Verdict.ACCEPTED) for sent in ground.sender._unanswered])
    assert await ground.turn() == 2


async def test_many_messages_in_a_row_without_an_acceptance_are_the_gateways_fault():
    ground = Ground(window=100, free=100)
    assert {r.verdict for r in ground.answer(Verdict.TEMPORARY, OPENS_AT - 1)} == {Verdict.TEMPORARY}
    assert {r.verdict for r in ground.answer(Verdict.TEMPORARY, 5)} == {Verdict.THROTTLED}, "it costs them no try"
    ground.add()
    assert await ground.turn() == 0, "it pauses"
    assert shown() == 1
    Ground(window=100, free=100)
    assert shown() == 0, "another instance begins with a breaker of its own"


async def test_silence_opens_it_too_and_stays_what_it_is():
    ground = Ground(window=100, free=100)
    assert {r.verdict for r in ground.answer(Verdict.NO_ANSWER, OPENS_AT)} == {Verdict.NO_ANSWER}
    assert {r.verdict for r in ground.answer(Verdict.TEMPORARY)} == {Verdict.THROTTLED}


@pytest.mark.parametrize("word", [Verdict.ACCEPTED, Verdict.FAILED])
async def test_a_word_about_any_message_ends_the_run(word: Verdict):
    ground = Ground(window=100, free=100)
    for _ in range(3):
        assert {r.verdict for r in ground.answer(Verdict.TEMPORARY, OPENS_AT - 1)} == {Verdict.TEMPORARY}
        ground.answer(word)


async def test_a_message_that_is_refused_again_and_again_is_no_fault_of_the_gateway():
    ground = Ground(window=100, free=100)
    leg = LegState(dispatch_event())
    for n in range(2 * OPENS_AT):
        result = Result(Sent(leg, Attempt(1, n, uuid4()), 0.0), Verdict.TEMPORARY)
        ground.sender.judge([result])
        assert result.verdict is Verdict.TEMPORARY


@pytest.mark.parametrize("missing", ["unbound", None])
async def test_what_has_expired_by_the_clock_of_postgres_alone_is_asked_for_while_there_is_no_room(missing: str | None):
    ground = Ground(window=10, free=0)
    ground.driver.missing = missing
    ground.add(valid_seconds=-60)
    ground.lease.postgres_time -= timedelta(hours=1)
    assert await ground.turn() == 0, "our clock is an hour ahead"
    ground.sender._look_for_expired_at = 0.0
    ground.lease.postgres_time += timedelta(hours=1)
    assert await ground.turn() == 1
