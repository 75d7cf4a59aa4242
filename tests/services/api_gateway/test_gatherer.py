import asyncio
from collections.abc import Sequence

import pytest

from services.api_gateway import gatherer
from services.api_gateway.gatherer import Gatherer, Overloaded
from tests.waiting import until

TIMEOUT_SECONDS = 60.0


class Flushes:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.deadlines: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def __call__(self, items: Sequence[int], deadline: float) -> list[str | Exception]:
        self.batches.append(list(items))
        self.deadlines.append(deadline)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [ValueError(str(i)) if i < 0 else str(i) for i in items]


def make(flushes: Flushes) -> Gatherer[int, str]:
    return Gatherer(flushes, timeout_seconds=TIMEOUT_SECONDS)


async def ask(gathered: Gatherer[int, str], item: int) -> str:
    """The item's result, awaited."""
    settled: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def settle(result: str | Exception) -> None:
        if isinstance(result, Exception):
            settled.set_exception(result)
        else:
            settled.set_result(result)

    gathered.ask(item, settle)
    return await settled


async def test_what_is_asked_together_is_flushed_together() -> None:
    flushes = Flushes()
    gathered = make(flushes)
    assert await asyncio.gather(*(ask(gathered, n) for n in range(100))) == [str(n) for n in range(100)]
    assert flushes.batches == [list(range(100))]
    await gathered.stop()


async def test_each_item_gets_its_own_result_or_error() -> None:
    gathered = make(Flushes())
    results = await asyncio.gather(ask(gathered, 1), ask(gathered, -2), ask(gathered, 3), return_exceptions=True)
    assert [str(r) for r in results] == ["1", "-2", "3"]
    assert isinstance(results[1], ValueError)
    await gathered.stop()


async def test_what_comes_during_a_flush_waits_for_the_next_one() -> None:
    flushes = Flushes()
    gathered = make(flushes)
    flushes.gate.clear()
    first = asyncio.create_task(ask(gathered, 1))
    await until(lambda: bool(flushes.batches))
    later = [asyncio.create_task(ask(gathered, n)) for n in range(2, 12)]
    await asyncio.sleep(0.01)
    assert flushes.batches == [[1]]
    flushes.gate.set()
    await asyncio.gather(first, *later)
    assert flushes.batches == [[1], list(range(2, 12))]
    await gathered.stop()


async def test_a_failed_flush_fails_its_items_and_no_others() -> None:
    flushes = Flushes()
    gathered = make(flushes)
    flushes.error = RuntimeError("no")
    with pytest.raises(RuntimeError):
        await ask(gathered, 1)
    flushes.error = None
    assert await ask(gathered, 2) == "2"
    await gathered.stop()


async def test_a_fault_of_who_is_told_a_result_disturbs_nobody() -> None:
    def faulty(result: str | Exception) -> None:
        raise RuntimeError("a fault")

    gathered = make(Flushes())
    gathered.ask(1, faulty)
    async with asyncio.timeout(5):
        assert await ask(gathered, 2) == "2"
        assert await ask(gathered, 3) == "3"
    await gathered.stop()


async def test_a_flush_that_forgets_an_item_fails_loudly() -> None:
    async def forgetful(items: Sequence[int], deadline: float) -> list[str | Exception]:
        return [str(i) for i in items[1:]]

    gathered: Gatherer[int, str] = Gatherer(forgetful, timeout_seconds=4)
    with pytest.raises(RuntimeError, match="results"):
        await ask(gathered, 1)
    await gathered.stop()


async def test_too_many_waiting_items_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gatherer, "MAX_WAITING", 3)
    gathered = make(Flushes())
    waiting = [asyncio.create_task(ask(gathered, n)) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await ask(gathered, 4)
    await asyncio.gather(*waiting)
    await gathered.stop()


async def test_a_stop_serves_what_waits_and_takes_no_more() -> None:
    flushes = Flushes()
    gathered = make(flushes)
    flushes.gate.clear()
    first = asyncio.create_task(ask(gathered, 1))
    await until(lambda: bool(flushes.batches))
    second = asyncio.create_task(ask(gathered, 2))
    await asyncio.sleep(0)
    stop = asyncio.create_task(gathered.stop())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await ask(gathered, 3)
    flushes.gate.set()
    await stop
    assert await asyncio.gather(first, second) == ["1", "2"]


async def test_an_idle_gatherer_stops() -> None:
    await asyncio.wait_for(make(Flushes()).stop(), 1)


async def test_whoever_has_no_time_left_is_given_some() -> None:
    flushes = Flushes()
    gathered: Gatherer[int, str] = Gatherer(flushes, timeout_seconds=0.0)
    asked_at = asyncio.get_running_loop().time()
    await ask(gathered, 1)
    assert flushes.deadlines[0] >= asked_at + gatherer.LEAST_SECONDS
    await gathered.stop()


async def test_the_items_of_a_flush_have_until_the_first_ones_deadline_however_long_the_flush_before_took() -> None:
    flushes = Flushes()
    gathered = make(flushes)
    flushes.gate.clear()
    first = asyncio.create_task(ask(gathered, 1))
    await until(lambda: bool(flushes.batches))
    now = asyncio.get_running_loop().time
    before = now()
    second = asyncio.create_task(ask(gathered, 2))
    await asyncio.sleep(0)
    after = now()
    await until(lambda: now() > after)
    third = asyncio.create_task(ask(gathered, 3))
    await asyncio.sleep(0)
    flushes.gate.set()
    await asyncio.gather(first, second, third)
    assert flushes.batches == [[1], [2, 3]]
    assert before + TIMEOUT_SECONDS <= flushes.deadlines[1] <= after + TIMEOUT_SECONDS
    await gathered.stop()


async def test_who_waits_for_more_than_one_flush_has_no_longer_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gatherer, "MAX_BATCH", 1)
    flushes = Flushes()
    gathered = make(flushes)
    flushes.gate.clear()
    asked = [asyncio.create_task(ask(gathered, n)) for n in range(3)]
    await asyncio.sleep(0)
    now = asyncio.get_running_loop().time
    after = now()
    await until(lambda: now() > after and bool(flushes.batches))
    flushes.gate.set()
    await asyncio.gather(*asked)
    assert len(flushes.deadlines) == 3
    assert max(flushes.deadlines) <= after + TIMEOUT_SECONDS
    await gathered.stop()
