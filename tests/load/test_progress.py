"""The wait for a count that grows."""

from collections.abc import Awaitable, Callable

import pytest

from tests.load import progress


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(progress, "STALLED_SECONDS", 0.5)


def counting(*counts: int) -> Callable[[], Awaitable[int]]:
    """These one after the other; the last one ever after."""
    left = list(counts)

    async def count() -> int:
        return left.pop(0) if len(left) > 1 else left[0]

    return count


async def test_it_is_waited_for_as_long_as_it_grows() -> None:
    slow = [count for each in range(20) for count in [each] * 4]  # more than the limit in all, far less for each
    await progress.reached(counting(*slow, 20), 20, "stored")


async def test_what_grows_no_further_fails_with_how_far_it_came() -> None:
    with pytest.raises(AssertionError, match="7 of 10 stored, and no more"):
        await progress.reached(counting(3, 7), 10, "stored")
