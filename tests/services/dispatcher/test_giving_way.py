"""A replica without a bind beside one that has one, or could have one: messages do not wait where nobody sends them."""

import asyncio

import pytest

from deploy.local.ports import free_port
from libs.contracts.statuses import Status
from libs.service_kit.config_file import SmppGateway
from services.dispatcher import instance
from services.dispatcher.drivers.table import make_driver
from services.dispatcher.instance import Instance
from tests.libs.smpp.scripted_smsc import scripted_smsc
from tests.services.dispatcher.world import MakeWorld, World, all_told
from tests.waiting import until


def at(world: World, port: int) -> SmppGateway:
    """The world's gateway, by another port."""
    return world.gateway.model_copy(update={"port": port})


def elsewhere(world: World, port: int) -> tuple[Instance, asyncio.Task[None]]:
    """A replica that reaches the carrier by another port."""
    made = Instance(world.settings(), at(world, port), world.pool, world.producer, make_driver)
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
        await until(lambda: w.pool.fetchval("SELECT bound FROM instances"), "the bind to be known to peers")
        never, unbound = elsewhere(w, free_port())
        await w.until(unbound.done)
        assert not never._intakes, "it has taken nothing from the other"
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
        lives, stopped, gateway = list[Instance](), asyncio.Event(), at(w, free_port())

        def make() -> Instance:
            lives.append(Instance(w.settings(), gateway, w.pool, w.producer, make_driver))
            return lives[-1]

        living = asyncio.create_task(instance.live(make, stopped))
        await w.until(lambda: bool(lives) and not lives[0].standing_by)
        w.start()
        await all_is_sent(w)
        stopped.set()
        await living
        assert len(lives) <= 2, "it stayed away until the other had the slot"
