"""A peer declares a doubt, and the answer is stored before it has looked: no Kafka, a real Postgres."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from libs.bus.port import Outgoing
from libs.bus.record import Record
from libs.service_kit.config_file import SmppGateway
from libs.storage.database import Pool
from services.dispatcher.attempts import LegState
from services.dispatcher.board import Board
from services.dispatcher.drivers.port import Result, Verdict
from services.dispatcher.lease import Lease
from services.dispatcher.ledger import Ledger
from services.dispatcher.sender import Sent
from services.dispatcher.settler import Settler
from tests.services.dispatcher.builders import GATEWAY, dispatch_event, record_of
from tests.services.dispatcher.test_ledger import another, claim, take

RESENDING = SmppGateway.model_validate(
    {"id": GATEWAY, "type": "smpp", "host": "h", "port": 1, "system_id": "s", "in_doubt": "resend_once"}
)


class Told:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    async def publish_many(self, outgoing: Sequence[Outgoing]) -> None:
        self.events += [json.loads(each.value or b"") for each in outgoing]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if kind in event["type"]]


class Interrupted(Ledger):
    """Something else happens between its declaring a doubt and its reading it back."""

    between: Callable[[], Awaitable[None]]

    async def declare_doubt(self, legs: Sequence[LegState]) -> int:
        doubtful = await super().declare_doubt(legs)
        await self.between()
        return doubtful


@pytest.mark.parametrize("verdict", [Verdict.TEMPORARY, Verdict.FAILED, Verdict.NOT_SENT])
async def test_a_refusal_that_takes_the_place_of_a_peers_doubt_opens_the_leg_that_the_doubt_would_have(
    pool: Pool, lease: Lease, ledger: Ledger, verdict: Verdict
) -> None:
    told, done = Told(), list[Record]()
    publisher: Any = told
    event = dispatch_event()
    ours, peers_record = record_of(event), record_of(event, offset=1)
    board, peers_board = Board(), Board()
    board.add(event, ours)
    (ask,) = board.take(1)
    take(await claim(ledger, ask.leg), lease)
    settler = Settler(RESENDING, ledger, board, publisher, done.extend, lambda: None)
    peer, _ = await another(pool)
    peers_ledger = Interrupted(pool, GATEWAY, peer.instance, 0)
    peers = Settler(RESENDING, peers_ledger, peers_board, publisher, done.extend, lambda: None)
    await pool.execute("UPDATE instances SET dead = true WHERE instance = $1", lease.instance)
    board.withdraw(ours.topic)

    async def answer() -> None:
        settler.take([Result(Sent(ask.leg, ask.leg.attempts[0], 0.0), verdict, code="smpp.x", words="w")])
        await settler._round()

    peers_ledger.between = answer
    peers_board.add(event, peers_record)
    (asked,) = peers_board.take(1)
    peers.look([asked.leg])
    await peers._round()
    assert done == [peers_record]
    assert {event["data"]["status"] for event in told.of("status")} == {"refused"}
    first, second = told.of("returned")
    assert first == second
    assert first["data"]["leg"]["leg"] == 2
