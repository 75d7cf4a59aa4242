from __future__ import annotations

import asyncio

import pytest

from libs.service_kit.waiting import set_within


async def test_an_event_that_is_set_counts_even_where_no_time_is_left() -> None:
    event = asyncio.Event()
    event.set()
    assert await set_within(event, 0)


@pytest.mark.parametrize("seconds", [0.001, 0, -1])
async def test_an_event_that_is_not_set_in_time_does_not_count(seconds: float) -> None:
    assert not await set_within(asyncio.Event(), seconds)


async def test_without_a_limit_the_event_is_waited_for() -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(set_within(event, None))
    await asyncio.sleep(0)
    assert not waiting.done()
    event.set()
    assert await waiting
