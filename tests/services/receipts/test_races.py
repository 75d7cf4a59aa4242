"""Two replicas on the same ids at once, from both sides, in many random interleavings against a real PostgreSQL.

Whoever comes first, each receipt ends as one event id, and none is missed: also when what a replica stored was not published because
it died, and the batch comes again to another one.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from libs.contracts.events import MessageEvent, ReceiptState, SmsStatus
from libs.storage.database import Pool
from services.receipts.handlers import outgoing
from tests.services.opposite_orders import in_opposite_orders
from tests.services.receipts.examples import OTHER_DESTINATION, in_doubt, published, receipt, seconds, submitted, take
from tests.waiting import until

ROUNDS = 40
IDS = 6
DEATHS = 0.2
WAITS = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"

Inputs = Sequence[Any]


class Jittery:
    """A connection on which every statement begins a random moment later, so that two of them meet in every order."""

    def __init__(self, connection: Any, chance: random.Random) -> None:
        self._connection = connection
        self._chance = chance

    def transaction(self) -> Any:
        return self._connection.transaction()

    async def execute(self, *arguments: Any) -> str:
        await self._pause()
        return await self._connection.execute(*arguments)

    async def fetch(self, *arguments: Any) -> list[Any]:
        await self._pause()
        return await self._connection.fetch(*arguments)

    async def fetchval(self, *arguments: Any) -> Any:
        await self._pause()
        return await self._connection.fetchval(*arguments)

    async def copy_records_to_table(self, *arguments: Any, **more: Any) -> str:
        await self._pause()
        return await self._connection.copy_records_to_table(*arguments, **more)

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.choice((0, 0, 0.0005, 0.002)))


async def race(pool: Pool, inputs: Inputs, seed: int) -> dict[str, MessageEvent[SmsStatus]]:
    """Two replicas share the inputs, in random batches, at once; what dies unpublished comes again. What was published, by event id."""
    chance = random.Random(seed)
    told: dict[str, MessageEvent[SmsStatus]] = {}
    todo = [batches(inputs[0::2], chance), batches(inputs[1::2], chance)]
    while any(todo):
        shares = [replica(pool, share, told, chance.getrandbits(32)) for share in todo]
        left = [batch for unpublished in await asyncio.gather(*shares) for batch in unpublished]
        todo = [left[::2], left[1::2]]
    return told


def batches(items: Inputs, chance: random.Random) -> list[Inputs]:
    found: list[Inputs] = []
    rest = list(items)
    while rest:
        size = chance.randint(1, len(rest))
        found.append(rest[:size])
        rest = rest[size:]
    return found


async def replica(pool: Pool, share: list[Inputs], told: dict[str, MessageEvent[SmsStatus]], seed: int) -> list[Inputs]:
    """Do the batches of a share; some are stored and never published, since it dies: those are answered."""
    chance = random.Random(seed)
    unpublished: list[Inputs] = []
    async with pool.acquire() as connection:
        for batch in share:
            matches = await take(Jittery(connection, chance), *batch)
            if chance.random() < DEATHS:
                unpublished.append(batch)
            else:
                told.update({event.id: event for event in published(outgoing(matches))})
    return unpublished


def shuffled(seed: int, *inputs: Any) -> Inputs:
    return random.Random(seed).sample(inputs, len(inputs))


def counted(told: dict[str, MessageEvent[SmsStatus]]) -> Counter[tuple[int, str, str]]:
    """How many event ids there are of each (message, status, provider id)."""
    return Counter((e.subject.int & 0xFFFF, str(e.data.status), e.data.provider_id or "") for e in told.values())


def names(seed: int) -> list[tuple[int, str]]:
    """(message, provider id) for the ids of one round; the message number serves as its reference, too."""
    return [(2 * IDS * seed + n, f"{seed}-{n}") for n in range(IDS)]


def both(provider_id: str, **changes: Any) -> tuple[Any, Any]:
    """An intermediate receipt that overtakes the submit, and the last one."""
    return receipt(provider_id, ReceiptState.ENROUTE, at=-0.1, **changes), receipt(provider_id, at=2, **changes)


async def test_every_receipt_ends_as_one_event(pool: Pool) -> None:
    for seed in range(ROUNDS):
        inputs = [e for n, name in names(seed) for e in (submitted(name, message=n), *both(name))]
        told = counted(await race(pool, shuffled(seed, *inputs), seed))
        expected = Counter((n, status, name) for n, name in names(seed) for status in ("buffered", "delivered"))
        assert told == expected, f"seed {seed}"


async def test_ids_given_twice_are_told_apart_by_the_number(pool: Pool) -> None:
    for seed in range(ROUNDS):
        inputs = [
            e
            for n, name in names(seed)
            for e in (
                submitted(name, message=n),
                *both(name),
                submitted(name, message=n + IDS, destination=OTHER_DESTINATION),
                *both(name, destination=OTHER_DESTINATION),
            )
        ]
        told = counted(await race(pool, shuffled(seed, *inputs), seed))
        expected = Counter(
            (m, status, name) for n, name in names(seed) for m in (n, n + IDS) for status in ("buffered", "delivered")
        )
        assert told == expected, f"seed {seed}"


async def test_a_doubt_ends_once_however_its_receipts_meet_it(pool: Pool) -> None:
    for seed in range(ROUNDS):
        inputs = [e for n, name in names(seed) for e in (in_doubt(n, message=n), *both(name, reference=n))]
        told = counted(await race(pool, shuffled(seed, *inputs), seed))
        expected = Counter(
            (n, status, name) for n, name in names(seed) for status in ("submitted", "buffered", "delivered")
        )
        assert told == expected, f"seed {seed}"


async def test_a_late_answer_and_a_receipt_end_a_doubt_together(pool: Pool) -> None:
    for seed in range(ROUNDS):
        inputs = [
            e
            for n, name in names(seed)
            for e in (
                in_doubt(n, message=n),
                submitted(name, message=n, observed_at=seconds(1)),
                *both(name, reference=n),
            )
        ]
        told = counted(await race(pool, shuffled(seed, *inputs), seed))
        proofs = {k: v for k, v in told.items() if k[1] == "submitted"}
        assert all(v == 1 for v in proofs.values()), f"seed {seed}"
        expected = Counter((n, status, name) for n, name in names(seed) for status in ("buffered", "delivered"))
        assert told - Counter(proofs) == expected, f"seed {seed}"


@pytest.mark.parametrize("order", [1, -1], ids=["the doubt first", "the receipt first"])
async def test_a_doubt_and_its_receipt_wait_for_each_other(pool: Pool, order: int) -> None:
    first, second = [in_doubt(7), receipt("a", reference=7)][::order]
    async with pool.acquire() as one, pool.acquire() as other:
        async with one.transaction():
            assert await take(one, first) == []
            taking = asyncio.create_task(take(other, second))

            async def waits() -> bool:
                return taking.done() or await pool.fetchval(WAITS, other.get_server_pid())

            await until(waits, "the other to wait")
        told = published(outgoing(await taking))
    assert [e.data.status for e in told] == ["submitted", "delivered"]


@pytest.mark.parametrize("made", [submitted, receipt], ids=["submits", "receipts"])
async def test_two_replicas_with_the_same_ids_wait_for_each_other_in_whatever_order_they_came(
    pool: Pool, made: Callable[[str], Any]
) -> None:
    async def taken(its: Pool, events: Inputs) -> None:
        async with its.acquire() as connection:
            await take(connection, *events)

    await in_opposite_orders(pool, taken, [made(provider_id) for provider_id in "abc"])
    assert await pool.fetchval("SELECT count(*) FROM provider_ids") == 3
