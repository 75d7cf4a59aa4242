"""What is taken in hand from a dispatch topic, and how it is given back. No Kafka."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from libs.bus.record import Record
from libs.contracts.events import Encoding, Leg, MessageEvent, Priority, Reason, SmsDispatch
from services.dispatcher.board import Board
from services.dispatcher.intake import Intake
from services.dispatcher.settings import DispatcherSettings
from tests.services.dispatcher.builders import GATEWAY, dispatch_event, record_of
from tests.waiting import until

NOW = dispatch_event().time


class Ground:
    """An intake and the stream that it reads, which has the second assignment."""

    epoch = 2

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.in_hand = 0
        self.faults: list[str] = []
        self.board = Board()
        settings = DispatcherSettings.model_construct(dispatcher_gateway=GATEWAY, dispatcher_most_legs=100)
        stream: Any = self
        self.intake = Intake(
            settings, Priority.NORMAL, self.board, stream, lambda: self.happened.append("woken"), self.drain, stream
        )
        self.intake._stream = stream

    async def drain(self) -> None:
        self.happened.append(f"drained of {self.board.waiting}")

    async def start(self) -> None:
        self.happened.append("joined")

    async def commit(self) -> None:
        self.happened.append("committed")

    async def stop(self) -> None:
        self.happened.append(f"left with {self.board.waiting}")

    def unfinished(self) -> int:
        return self.in_hand

    async def getmany(self, **_: int) -> list[Record]:
        self.happened.append("fetched")
        await asyncio.sleep(0)
        return []

    async def dead_letter(self, _: Record, reason: Reason) -> None:
        self.faults.append(reason.words)

    def succeeded(self) -> None:
        self.happened.append("succeeded")

    async def take(self, *events: MessageEvent[SmsDispatch], epoch: int = epoch) -> None:
        records: Sequence[Record] = [record_of(event, offset) for offset, event in enumerate(events)]
        for record in records:
            record.epoch = epoch
        await self.intake._take(list(records))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"gateway": "another"}, "data.gateway: "),
        *(({"leg": Leg(cycle, 1, NOW)}, "data.leg.cycle: ") for cycle in (0, 32768)),
        *(({"leg": Leg(1, leg, NOW)}, "data.leg.leg: ") for leg in (0, 32768)),
        ({"segments": 2}, "data.segments: "),
        ({"encoding": Encoding.UCS2, "segments": 2}, "data.segments: "),
        ({"message": replace(dispatch_event().data.message, text="\ud800")}, "data.message.text: "),
    ],
)
async def test_what_no_attempt_could_be_made_of_is_put_away_and_the_rest_is_taken_in_hand(
    changes: dict[str, Any], fault: str
):
    ground, good = Ground(), dispatch_event()
    bad = dispatch_event()
    bad = replace(bad, data=replace(bad.data, **changes))
    await ground.take(bad, good)
    assert [told[: len(fault)] for told in ground.faults] == [fault]
    assert [ask.leg.event for ask in ground.board.take(9)] == [good]
    assert ground.happened == ["woken", "succeeded"]


async def test_the_segments_are_those_of_the_encoding_that_was_decided():
    ground, event = Ground(), dispatch_event()
    message = replace(event.data.message, text="x" * 100)
    await ground.take(replace(event, data=replace(event.data, message=message, encoding=Encoding.UCS2, segments=2)))
    assert (ground.faults, ground.board.waiting) == ([], 1)


@pytest.mark.parametrize("last", [Leg(32767, 1, NOW), Leg(1, 32767, NOW)])
async def test_the_last_cycle_and_the_last_leg_are_taken_in_hand(last: Leg):
    ground, event = Ground(), dispatch_event()
    await ground.take(replace(event, data=replace(event.data, leg=last)))
    assert ground.board.waiting == 1


async def test_what_was_delivered_before_a_rebalance_is_not_taken_in_hand_after_it():
    ground = Ground()
    await ground.take(dispatch_event(), epoch=1)
    assert (ground.board.waiting, ground.happened) == (0, [])


async def test_what_is_taken_away_is_waited_for_and_then_forgotten():
    ground = Ground()
    await ground.take(dispatch_event())
    await ground.intake._revoked(frozenset())
    assert (ground.board.waiting, ground.happened[-1]) == (0, "drained of 1")


async def test_nothing_more_is_fetched_with_as_many_records_in_hand_as_are_allowed():
    ground = Ground()
    ground.in_hand = 100
    await ground.intake._fetch()
    assert ground.happened == []
    ground.in_hand = 99
    await ground.intake._fetch()
    assert ground.happened == ["fetched"]


async def test_at_the_end_what_is_done_is_committed_and_the_rest_given_back_before_it_leaves():
    ground = Ground()
    await ground.take(dispatch_event())
    running = asyncio.create_task(ground.intake.run())
    await until(lambda: "fetched" in ground.happened)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert ground.happened[-2:] == ["committed", "left with 0"]
