from __future__ import annotations

import asyncio
import random

from services.simulated_carrier.wheel import Wheel
from tests.waiting import until


async def test_items_come_in_the_order_in_which_they_are_due_and_none_early() -> None:
    loop = asyncio.get_running_loop()
    came: list[tuple[float, float]] = []
    wheel: Wheel[float] = Wheel(lambda due: came.extend((at, loop.time()) for at in due), bucket_seconds=0.001)
    delays = [n / 1_000 for n in range(0, 100, 2)]
    random.Random(1).shuffle(delays)
    for delay in delays:
        wheel.extend(delay, [loop.time() + delay])
    assert len(wheel) == 50
    await until(lambda: len(came) == 50)
    assert all(at <= now + 0.000_001 for at, now in came)
    assert [at for at, _ in came] == sorted(at for at, _ in came)
    assert len(wheel) == 0


async def test_items_of_one_moment_come_together_and_in_order() -> None:
    batches: list[list[int]] = []
    wheel: Wheel[int] = Wheel(batches.append, bucket_seconds=0.1)
    for number in range(1_000):
        wheel.extend(0.2, [number])
    await until(lambda: sum(map(len, batches)) == 1_000)
    assert [number for batch in batches for number in batch] == list(range(1_000))
    assert len(batches) < 100


async def test_a_closed_wheel_forgets_what_was_waiting() -> None:
    came: list[int] = []
    wheel: Wheel[int] = Wheel(came.extend, bucket_seconds=0.001)
    wheel.extend(0.001, [1])
    wheel.close()
    assert len(wheel) == 0
    other: Wheel[int] = Wheel(came.extend, bucket_seconds=0.001)
    other.extend(0.01, [2])
    await until(lambda: bool(came))
    assert came == [2]
