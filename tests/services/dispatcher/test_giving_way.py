"""A replica without a bind beside one that has one, or could have one: messages do not wait where nobody sends them."""

import asyncio

import pytest

from deploy.local.ports import free_port
from libs.contracts.statuses import Status
from services.dispatcher import instance
from services.dispatcher.drivers.table import make_driver
from services.dispatcher.instance import Instance
from tests.libs.smpp.scripted_smsc import scripted_smsc
from tests.services.dispatcher.world import MakeWorld, World, all_told


def elsewhere(world: World, port: int) -> tuple[Instance, asyncio.Task[None]]:
    """A replica that reaches the carrier by another port."""
    gateway = world.gateway.model_copy(update={"port": port})
    made = Instance(world.settings(), gateway, world.pool, world.producer, make_driver)
    running = asyncio.create_task(made.run())
    world.running.append((made, running))
    return made, running


async def all_is_sent(world: World) -> None:
    events = [world.event(f"{n}") for n in range(40)]
    await world.send(*events)
    await world.until(all_told(world, events, Status.SUBMITTED))


async def test_a_replica_that_never_binds_leaves_the_work_to_the_one_that_is_bound(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(instance, "BIND_SECONDS", 1.0)
    async with world() as w:
        bound = w.start()
        await w.until(lambda: bound.missing is None and not bound.standing_by)
        _, unbound = elsewhere(w, free_port())
        await w.until(unbound.done)
        await all_is_sent(w)
        assert bound.missing is None


async def test_a_replica_that_loses_its_bind_for_good_leaves_the_work_too(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(instance, "BIND_SECONDS", 1.0)
    async with world() as w:
        w.start()
        async with scripted_smsc() as other:
            losing, running = elsewhere(w, other.port)
            await w.until(lambda: losing.missing is None and not losing.standing_by)
            await all_is_sent(w)
        await w.until(running.done)
        await all_is_sent(w)


async def test_a_slot_that_is_of_no_use_passes_to_the_replica_that_stands_by(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(instance, "BIND_SECONDS", 0.5)
    monkeypatch.setattr(instance, "SLOT_SECONDS", 1.0)
    async with world(binds_allowed=1) as w:
        holding, running = elsewhere(w, free_port())
        await w.until(lambda: not holding.standing_by)
        w.start()
        await w.until(running.done)
        await all_is_sent(w)
