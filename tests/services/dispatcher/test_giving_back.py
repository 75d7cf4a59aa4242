"""In which order an instance gives back what it has, and when it asks for a slot again. No server takes part."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from libs.service_kit.config_file import SmppGateway
from services.dispatcher import instance
from services.dispatcher.instance import Instance
from services.dispatcher.settings import DispatcherSettings
from tests.services.dispatcher.builders import GATEWAY
from tests.waiting import until


class Ground:
    """An instance with all its neighbours played: `happened` says what they were asked for."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.in_flight = 0
        self.idle = True
        self.slots: list[Exception | int | None] = []
        self.drained_for: float | None = None
        self.topic, self.missing, self.peer_bound_seconds, self.peer_stands_by = "t", None, 0.0, False
        self.looks_for_orphans = 0
        anything: Any = self
        settings = DispatcherSettings.model_construct(
            dispatcher_gateway=GATEWAY, dispatcher_lease_seconds=0.05, dispatcher_drain_seconds=60.0
        )
        gateway = SmppGateway(id=GATEWAY, type="smpp", host="h", port=1, system_id="s")
        self.instance = made = cast(Any, Instance(settings, gateway, anything, anything, lambda *_: anything))
        made._sender = made._settler = made._lease = self
        self.valid = True

    def start(self) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def publish_orphans(self) -> None:
        self.looks_for_orphans += 1
        if self.looks_for_orphans == 1:
            raise ConnectionRefusedError
        await asyncio.Event().wait()

    def pause(self) -> None:
        self.happened.append("paused")

    def resume(self) -> None:
        self.happened.append("resumed")

    def withdraw(self) -> None:
        self.happened.append("withdrawn")

    async def stop(self, drain_seconds: float) -> None:
        """The driver's: what had no answer is in doubt now, and to be stored."""
        self.drained_for = drain_seconds
        self.happened.append("unbound")
        self.idle = False
        asyncio.get_running_loop().call_later(0.05, self.stored)

    def stored(self) -> None:
        self.happened.append("stored")
        self.idle = True

    async def take_slot(self, _: int) -> int | None:
        slot = self.slots.pop(0)
        if isinstance(slot, Exception):
            raise slot
        return slot


@pytest.fixture
async def ground(monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setattr(instance, "POLL_SECONDS", 0)
    return Ground()


@pytest.fixture
async def endless() -> AsyncIterator[asyncio.Task[Any]]:
    task = asyncio.create_task(asyncio.Event().wait())
    yield task
    task.cancel()


async def some_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_rebalance_waits_for_what_is_in_flight_and_stored_and_the_last_of_two_claims_again(ground: Ground):
    ground.in_flight = 1
    given_up, *draining = [asyncio.create_task(ground.instance._drain_for_rebalance()) for _ in range(3)]
    await some_turns()
    given_up.cancel()
    await asyncio.wait([given_up])
    ground.in_flight, ground.idle = 0, False
    await some_turns()
    assert ground.happened == ["paused"] * 3
    ground.idle = True
    await asyncio.gather(*draining)
    assert ground.happened == ["paused"] * 3 + ["resumed"]


async def test_a_rebalance_at_the_end_claims_nothing_again(ground: Ground):
    ground.instance._ending = True
    await ground.instance._drain_for_rebalance()
    assert ground.happened == ["paused"]


async def test_at_the_end_it_waits_for_answers_unbinds_stores_and_only_then_leaves_its_groups(
    ground: Ground, endless: asyncio.Task[Any]
):
    async def intake() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ground.happened.append("left")

    intakes, beside = [asyncio.create_task(intake())], asyncio.create_task(asyncio.Event().wait())
    ground.in_flight = 1
    ending = asyncio.create_task(ground.instance._give_back(intakes, [beside], endless))
    await some_turns()
    assert ground.happened == ["paused"]
    ground.in_flight = 0
    await ending
    assert ground.happened == ["paused", "withdrawn", "unbound", "stored", "left"]
    assert ground.drained_for and beside.cancelled()


async def test_a_neighbours_absence_ends_nothing_and_a_mistake_in_storing_answers_does(
    ground: Ground, endless: asyncio.Task[Any]
):
    async def settle() -> None:
        await mistake.wait()
        raise KeyError("settling")

    mistake = asyncio.Event()
    settling, ground.instance._intake = asyncio.create_task(settle()), lambda _: ground
    sending = asyncio.create_task(ground.instance._send(endless, settling))
    await until(lambda: sending.done() or ground.looks_for_orphans == 2)
    mistake.set()
    with pytest.raises(KeyError, match="settling"):
        await asyncio.wait_for(sending, 5)


async def test_who_has_no_lease_waits_for_no_answer_before_it_unbinds(ground: Ground, endless: asyncio.Task[Any]):
    ground.valid, ground.in_flight = False, 1
    ending = asyncio.create_task(ground.instance._give_back([], [], endless))
    await until(lambda: "unbound" in ground.happened)
    assert ground.happened[:3] == ["paused", "withdrawn", "unbound"]
    assert ground.drained_for == 0, "a peer may bind at any moment"
    ground.in_flight = 0
    await ending


@pytest.mark.parametrize("stopped", [False, True], ids=["nobody stores any more", "a stop"])
async def test_what_is_not_stored_yet_is_not_waited_for_without_end(ground: Ground, stopped: bool):
    settling: asyncio.Task[Any] = asyncio.create_task(asyncio.Event().wait())
    if stopped:
        ground.instance.stop()
    else:
        settling.cancel()
        await asyncio.wait([settling])
    ground.idle = False
    async with asyncio.timeout(5):
        await ground.instance._until_stored(settling)
    settling.cancel()


async def test_a_slot_is_asked_for_again_while_postgres_is_away_or_none_is_free(
    ground: Ground, endless: asyncio.Task[Any]
):
    ground.slots = [ConnectionRefusedError(), None, 1]
    assert await ground.instance._until_slot(endless)
    assert ground.slots == [] and not ground.instance.standing_by


async def test_who_has_no_lease_any_more_asks_for_no_slot(ground: Ground, endless: asyncio.Task[Any]):
    endless.cancel()
    await asyncio.wait([endless])
    assert not await ground.instance._until_slot(endless)
    assert ground.instance.standing_by
