import asyncio

import pytest

from libs.service_kit.problems import ProblemError
from services.api_gateway.neighbours import Neighbour
from services.api_gateway.numbers import BLOCK, Numbers
from tests.services.api_gateway.fakes import FakeLedger


async def test_numbers_are_positive_and_never_given_twice() -> None:
    ledger = FakeLedger()
    numbers = Numbers(ledger.next_block, Neighbour("Postgres"))
    taken = [n for _ in range(25) for n in await numbers.take(1000)]
    await numbers.stop()
    assert min(taken) == 1
    assert len(set(taken)) == len(taken) == 25_000


async def test_a_stock_outlasts_an_absence_of_postgres() -> None:
    ledger = FakeLedger()
    numbers = Numbers(ledger.next_block, Neighbour("Postgres"))
    await numbers.take(1)
    async with asyncio.timeout(5):
        while ledger.blocks < 2:  # fetched ahead
            await asyncio.sleep(0)
    ledger.error = ConnectionRefusedError()
    assert len(await numbers.take(BLOCK)) == BLOCK
    with pytest.raises(ProblemError) as raised:
        await numbers.take(BLOCK)
    assert raised.value.problem.status == 503
    ledger.error = None
    assert len(await numbers.take(BLOCK)) == BLOCK
    await numbers.stop()


async def test_runs_are_in_a_row_and_never_given_twice() -> None:
    ledger = FakeLedger()
    numbers = Numbers(ledger.next_block, Neighbour("Postgres"))
    counts = (3, 7_000, 4_000, BLOCK, 1)
    firsts = await asyncio.gather(*(numbers.take_run(count) for count in counts))
    single = await numbers.take(100)
    await numbers.stop()
    given = [n for first, count in zip(firsts, counts, strict=True) for n in range(first, first + count)] + single
    assert len(set(given)) == len(given)
    assert firsts[1] == firsts[0] + 3


async def test_concurrent_callers_share_one_fetch() -> None:
    ledger = FakeLedger()
    numbers = Numbers(ledger.next_block, Neighbour("Postgres"))
    taken = await asyncio.gather(*(numbers.take(10) for _ in range(50)))
    await numbers.stop()
    assert len({n for part in taken for n in part}) == 500
    assert ledger.blocks <= 2
