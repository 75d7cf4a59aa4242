"""What an instance decides on its own. No server takes part."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from libs.bus.errors import TooManyDeadLetters
from libs.service_kit.metrics import BOUND
from services.dispatcher.instance import Instance, live
from services.dispatcher.lease import LeaseOver
from tests.waiting import WITHIN_SECONDS, until


@pytest.mark.parametrize(
    ("unbound", "peer_bound", "peer_stands_by", "gives_way"),
    [
        (None, 100, True, False),
        (40, 40, False, True),
        (40, 20, False, False),
        (20, 40, False, False),
        (290, 0, True, False),
        (310, 0, True, True),
        (310, 0, False, False),
    ],
)
async def test_it_gives_way_only_to_a_peer_that_is_better_placed(
    unbound: float | None, peer_bound: float, peer_stands_by: bool, gives_way: bool
):
    made: Any = object.__new__(Instance)
    made._unbound_since = None if unbound is None else asyncio.get_running_loop().time() - unbound
    made._lease = SimpleNamespace(peer_bound_seconds=peer_bound, peer_stands_by=peer_stands_by)
    assert made._gives_way is gives_way


async def test_the_time_without_a_bind_begins_with_its_loss_and_ends_with_the_next():
    made: Any = object.__new__(Instance)
    woken: list[None] = []
    made._gateway, made._sender = SimpleNamespace(id="demo"), SimpleNamespace(wake=lambda: woken.append(None))
    made._driver, made._lease = SimpleNamespace(missing=None), SimpleNamespace(bound=False)
    made._unbound_since = asyncio.get_running_loop().time() - 100

    def told() -> tuple[bool, float]:
        made._on_change()
        return made._lease.bound, BOUND.labels("demo")._value.get()

    assert (told(), made._unbound_seconds) == ((True, 1), 0)
    made._driver.missing = "unbound"
    assert told() == (False, 0)
    since = made._unbound_since
    assert 0 <= made._unbound_seconds < 100
    assert (told(), made._unbound_since) == ((False, 0), since)
    assert len(woken) == 3, "it looks at once at what it may send"


async def test_what_keeps_it_from_sending_is_told_from_its_beginning_to_its_end():
    seen: list[str | None] = []

    async def at_once() -> None:
        seen.append(made.missing)

    async def never() -> None:
        await asyncio.Event().wait()

    async def slot(_: object) -> bool:
        seen.append(made.missing)
        made._standby = False
        return True

    async def send(*_: object) -> None:
        seen.append(made.missing)
        raise TooManyDeadLetters("20 in a row")

    made: Any = object.__new__(Instance)
    made._registered, made._standby, made._stopped_for = False, True, None
    made._gateway, made._driver = SimpleNamespace(id="demo"), SimpleNamespace(missing="unbound")
    made._lease = SimpleNamespace(instance=1, register=at_once, keep=never, release=at_once)
    made._settler, made._until_slot, made._send = SimpleNamespace(run=never), slot, send
    before = asyncio.all_tasks()
    with pytest.raises(TooManyDeadLetters):
        await made.run()
    assert asyncio.all_tasks() == before, "it leaves nothing running"
    stopped = "stopped: too many dead letters: 20 in a row"
    assert seen == ["no lease yet", None, "unbound", stopped]


class Lives:
    """Instances that end with an error, one after the other."""

    def __init__(self, error: Exception) -> None:
        self.made = 0
        self._error = error

    def make(self) -> Any:
        self.made += 1
        return self

    async def run(self) -> None:
        raise self._error

    def stop(self) -> None:
        pass


@pytest.mark.parametrize("error", [LeaseOver(), ConnectionRefusedError()])
async def test_a_life_that_a_neighbour_has_ended_is_followed_by_another(error: Exception):
    lives, stopped = Lives(error), asyncio.Event()
    living = asyncio.create_task(live(lives.make, stopped))
    await until(lambda: lives.made == 2)
    stopped.set()
    await living


async def test_a_stop_ends_the_life_that_is_being_lived():
    class Staying(Lives):
        def stop(self) -> None:
            asked.set()

        async def run(self) -> None:
            await asked.wait()

    asked, stopped = asyncio.Event(), asyncio.Event()
    lives = Staying(KeyError())
    living = asyncio.create_task(live(lives.make, stopped))
    await until(lambda: lives.made == 1)
    stopped.set()
    await asyncio.wait_for(living, WITHIN_SECONDS)
    assert lives.made == 1


async def test_a_life_that_dead_letters_have_ended_is_followed_by_none():
    lives, stopped = Lives(TooManyDeadLetters("too many")), asyncio.Event()
    living = asyncio.create_task(live(lives.make, stopped))
    for _ in range(50):  # turns of the loop
        await asyncio.sleep(0)
    assert (lives.made, living.done()) == (1, False)
    stopped.set()
    await living
    assert lives.made == 1


async def test_a_life_that_a_mistake_has_ended_ends_the_process():
    with pytest.raises(KeyError):
        await live(Lives(KeyError()).make, asyncio.Event())
