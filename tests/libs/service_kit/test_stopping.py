"""How a service stops: whenever that comes, all of it, in order."""

import asyncio
from collections.abc import Callable

import pytest

from libs.service_kit import lifecycle
from libs.service_kit.lifecycle import Lifecycle, Stopping
from libs.service_kit.settings import ServiceSettings


def settings(**given: float) -> ServiceSettings:
    return ServiceSettings.model_validate({"ops_port": 0, "internal_token": "x" * 16, **given})


async def test_a_stop_is_heard_while_a_neighbour_is_waited_for_without_end():
    life, given_up = Lifecycle(settings()), list[str]()

    async def start() -> None:
        life.request_stop()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            given_up.append("kafka")

    with pytest.raises(Stopping):
        async with asyncio.timeout(5):
            await life.part("kafka", start)
    assert given_up == ["kafka"]


async def test_what_has_started_in_the_moment_of_the_stop_is_stopped_too():
    life, stopped = Lifecycle(settings()), list[str]()

    async def start() -> str:
        life.request_stop()
        return "pool"

    async def stop(pool: str) -> None:
        stopped.append(pool)

    await life.part("postgres", start, stop)
    with pytest.raises(Stopping):
        await life.part("kafka", asyncio.Event().wait)
    await life.stop_all()
    assert stopped == ["pool"]


async def test_a_stop_is_heard_while_the_next_try_of_a_start_is_waited_for():
    life, tries = Lifecycle(settings()), list[str]()

    async def start() -> None:
        tries.append("kafka")
        life.request_stop()
        raise ConnectionRefusedError

    with pytest.raises(Stopping):
        async with asyncio.timeout(5):
            await life.part("kafka", start)
    assert tries == ["kafka"]


async def test_parts_stop_in_reverse_and_one_that_fails_keeps_no_other_from_stopping():
    life = Lifecycle(settings())
    stopped: list[str] = []

    def part(name: str) -> Callable[[], "asyncio.Future[str]"]:
        def start() -> "asyncio.Future[str]":
            future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            future.set_result(name)
            return future

        return start

    async def stop(name: str) -> None:
        if name == "second":
            raise RuntimeError("will not")
        stopped.append(name)

    for name in ("first", "second", "third"):
        await life.part(name, part(name), stop)
    await life.stop_all()
    assert stopped == ["third", "first"]


async def test_what_goes_on_beside_has_ended_before_what_it_uses_stops():
    life, order = Lifecycle(settings()), list[str]()

    async def start() -> None: ...

    async def stop(_: object) -> None:
        order.append("pool closed")

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            order.append("work ended")

    await life.part("postgres", start, stop)
    life.background("work", work())
    await asyncio.sleep(0)
    await life.stop_all()
    assert order == ["work ended", "pool closed"]


async def test_a_neighbour_that_is_being_asked_is_asked_no_more_once_the_service_stops(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(lifecycle, "WATCH_SECONDS", 0.001)
    life, asked, called_off = Lifecycle(settings()), asyncio.Event(), asyncio.Event()

    async def ask() -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            called_off.set()

    life.watch("postgres", ask)
    async with asyncio.timeout(5):
        await asked.wait()
        await life.stop_all()
        await called_off.wait()


async def test_whose_budget_others_have_used_up_stops_at_once():
    life, budgets = Lifecycle(settings(drain_budget_seconds=0.01)), list[float]()

    async def stop() -> None:
        budgets.append(life.left_seconds)
        await asyncio.sleep(0.02)

    life.on_stop("second", stop)
    life.on_stop("first", stop)
    await life.stop_all()
    assert 0 < budgets[0] <= 0.01
    assert budgets[1] == 0


async def test_a_service_that_stops_is_not_ready():
    life, missing = Lifecycle(settings()), list[dict[str, str]]()
    life.health.starting = None

    async def stop() -> None:
        missing.append(life.health.missing())

    life.on_stop("look", stop)
    await life.stop_all()
    assert missing == [{"start": "stopping"}]
