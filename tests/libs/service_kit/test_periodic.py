import asyncio

from libs.service_kit.periodic import repeat


async def test_work_that_failed_is_done_again_at_the_next_turn() -> None:
    tries, done = list[int](), asyncio.Event()

    async def work() -> None:
        tries.append(len(tries))
        if len(tries) < 3:
            raise KeyError
        done.set()

    repeating = asyncio.create_task(repeat("work", 0, work))
    async with asyncio.timeout(5):
        await done.wait()
    repeating.cancel()
    assert tries[:3] == [0, 1, 2]
