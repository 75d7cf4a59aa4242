"""The queue of delivers: what happens to it when the session ends."""

import asyncio

from libs.smpp.delivers import Deliver, Delivers
from libs.smpp.pdus import DeliverSm, DeliverSmResp

PDU = DeliverSm("254711000001", "Postrider")


async def test_the_batch_in_the_handlers_hands_is_finished_unanswered_and_what_waits_is_left_to_come_again() -> None:
    started, may_go, finished, written = asyncio.Event(), asyncio.Event(), list[int](), list[bytes]()

    async def handle(pdus: list[Deliver]) -> None:
        started.set()
        await may_go.wait()
        finished.append(len(pdus))

    delivers = Delivers(handle, written.append, limit=10, batch=1)
    delivers.put(1, PDU)
    delivers.put(2, PDU)
    await asyncio.wait_for(started.wait(), 5.0)
    delivers.stop(cancel=False)
    delivers.put(3, PDU)
    may_go.set()
    await delivers.finish()
    assert finished == [1]
    assert written == []


async def test_cancelling_stops_the_handler() -> None:
    cancelled = asyncio.Event()
    started = asyncio.Event()

    async def handle(_pdus: list[Deliver]) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    delivers = Delivers(handle, lambda _data: None, limit=10, batch=1)
    delivers.put(1, PDU)
    await asyncio.wait_for(started.wait(), 5.0)
    delivers.stop(cancel=True)
    await asyncio.wait_for(cancelled.wait(), 5.0)


async def test_many_that_come_together_are_handled_together() -> None:
    batches: list[int] = []
    written: list[bytes] = []

    async def handle(pdus: list[Deliver]) -> None:
        batches.append(len(pdus))

    delivers = Delivers(handle, written.append, limit=100, batch=4)
    for sequence in range(10):
        delivers.put(sequence, PDU)
    await delivers.finish()
    assert batches == [4, 4, 2]
    assert written[0] == b"".join(DeliverSmResp().encode(sequence) for sequence in range(4))
