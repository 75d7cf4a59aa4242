import asyncio
from itertools import islice

import pytest

from libs.service_kit.backoff import GivenUp, delays, until_done


def test_delays_double_from_a_fifth_of_a_second_to_five_seconds_each_shortened_by_up_to_a_half() -> None:
    for _ in range(50):
        for delay, full in zip(islice(delays(), 8), (0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5), strict=True):
            assert full / 2 <= delay <= full


async def test_an_action_is_tried_again_until_it_succeeds() -> None:
    failures = iter([ConnectionRefusedError(), TimeoutError()])
    retries: list[None] = []

    async def action() -> str:
        for failure in failures:
            raise failure
        return "done"

    result = await until_done(action, what="x", on_retry=retries.append)
    assert (result, len(retries)) == ("done", 2)


async def test_other_errors_pass_at_once() -> None:
    async def action() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await until_done(action, what="x")


async def test_it_is_given_up_only_after_a_failure() -> None:
    give_up = asyncio.Event()
    give_up.set()

    async def succeed() -> int:
        return 1

    async def fail() -> None:
        raise TimeoutError

    assert await until_done(succeed, what="x", give_up=give_up) == 1
    with pytest.raises(GivenUp):
        await until_done(fail, what="x", give_up=give_up)
