"""From results to what is stored: what comes while the ledger is slow. No Kafka, no Postgres."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from libs.bus.port import Outgoing
from libs.bus.record import Record
from libs.service_kit.config_file import SmppGateway
from services.dispatcher.attempts import Attempt, LegKey, LegState, Outcome
from services.dispatcher.board import Board
from services.dispatcher.drivers.port import Result, Verdict
from services.dispatcher.ledger import LateEvent, Settled
from services.dispatcher.sender import Sent
from services.dispatcher.settler import Settler
from tests.services.dispatcher.builders import dispatch_event, record_of

GATEWAY = SmppGateway.model_validate({"id": "demo", "type": "smpp", "host": "h", "port": 1, "system_id": "s"})


class SlowLedger:
    """Stores when it is let, and knows what it has stored."""

    def __init__(self) -> None:
        self.may_store = asyncio.Event()
        self.calls: list[list[tuple[str, str]]] = []
        self.rows: dict[LegKey, list[Attempt]] = {}
        """What is read of each leg."""
        self.published: list[Outgoing] = []
        self._stored: set[tuple[object, ...]] = set()

    async def settle(self, settled: Sequence[Settled]) -> list[Settled]:
        await self.may_store.wait()
        self.calls.append([(one.leg.event.data.message.text, str(one.attempt.outcome)) for one in settled])
        late = [one for one in settled if one.leg.key in self._stored]
        self._stored |= {one.leg.key for one in settled}
        return late

    async def settle_late(
        self, settled: Settled, may_open_leg: bool, doubt_opens_leg: bool, events_of: Any
    ) -> tuple[Attempt, list[LateEvent]]:
        self.calls.append([(settled.leg.event.data.message.text, f"late {settled.attempt.outcome}")])
        return settled.attempt, []

    async def read(self, _: Sequence[LegState]) -> dict[LegKey, list[Attempt]]:
        return self.rows

    async def publish_many(self, outgoing: Sequence[Outgoing]) -> None:
        self.published += outgoing


async def test_a_late_answer_that_comes_in_one_round_with_its_doubt_is_stored_after_it():
    ledger, board, done = SlowLedger(), Board(), list[Record]()
    anything: Any = ledger

    settler = Settler(GATEWAY, anything, board, anything, done.extend, lambda: None)
    tokens: dict[str, Sent] = {}
    for text in ("first", "slow"):
        event = dispatch_event(text)
        board.add(event, record_of(event))
        (ask,) = board.take(1)
        attempt = Attempt(1, 1, uuid4(), ours=True)
        ask.leg.attempts.append(attempt)
        tokens[text] = Sent(ask.leg, attempt, 0.0)
    running = asyncio.create_task(settler.run())
    settler.take([Result(tokens["first"], Verdict.ACCEPTED, "1")])
    await asyncio.sleep(0)  # it is being stored
    settler.take([Result(tokens["slow"], Verdict.NO_ANSWER)])
    settler.take([Result(tokens["slow"], Verdict.ACCEPTED, "2")])
    ledger.may_store.set()
    async with asyncio.timeout(20):
        while not settler.idle:
            await asyncio.sleep(0.01)
    running.cancel()
    assert ledger.calls[:3] == [[("first", "A")], [("slow", "D")], [("slow", "A")]]
    assert ledger.calls[3] == [("slow", "late A")]
    assert [record.event.data.message.text for record in done] == ["first", "slow"]


async def test_what_a_claim_ended_of_a_message_is_told_also_where_another_part_has_ended_it_meanwhile():
    ledger, board, done = SlowLedger(), Board(), list[Record]()
    anything: Any = ledger
    settler = Settler(GATEWAY, anything, board, anything, done.extend, lambda: None)
    event = dispatch_event("x" * 161)
    board.add(event, record_of(event))
    leg = board.take(2)[0].leg
    owner, now = uuid4(), datetime.now(UTC)
    throttled = Attempt(1, 1, owner, Outcome.THROTTLED, ours=True, observed_at=now)
    refused = Attempt(2, 1, owner, ours=True)
    leg.attempts += [throttled, refused]
    settler.take([Result(Sent(leg, refused, 0.0), Verdict.FAILED)])
    running = asyncio.create_task(settler.run())
    await asyncio.sleep(0)  # it is being stored
    failed = Attempt(2, 1, owner, Outcome.FAILED, observed_at=now)
    expired = Attempt(1, 2, owner, Outcome.EXPIRED, observed_at=now)
    ledger.rows[leg.key] = [throttled, failed, expired]
    settler.look([leg])
    ledger.may_store.set()
    async with asyncio.timeout(20):
        while not settler.idle:
            await asyncio.sleep(0.01)
    running.cancel()
    assert any(b'"expired"' in (each.value or b"") for each in ledger.published)
    assert len(done) == 1
