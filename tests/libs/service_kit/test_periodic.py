import asyncio

from structlog.testing import capture_logs

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


async def test_a_neighbour_that_is_away_is_a_warning_and_all_else_an_error() -> None:
    faults = iter((ConnectionRefusedError(), KeyError()))
    done = asyncio.Event()

    async def work() -> None:
        for fault in faults:
            raise fault
        done.set()

    with capture_logs() as logs:
        repeating = asyncio.create_task(repeat("work", 0, work))
        async with asyncio.timeout(5):
            await done.wait()
        repeating.cancel()
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("warning", "work failed"),
        ("error", "work failed"),
    ]
