"""What was registered here a moment ago is not looked up, as long as every status comes here."""

from dataclasses import replace
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from libs.bus.batch import Batch
from libs.bus.memory import MemoryBus
from libs.bus.record import Record
from libs.contracts.topics import PARTITIONS, STATUS
from libs.storage.database import Pool
from services.receipts.handlers import handle
from services.receipts.recent import RecentRegistrations
from tests.services.receipts.examples import (
    KEY,
    OTHER_DESTINATION,
    TRACE,
    in_doubt,
    message_id,
    published,
    receipt,
    seconds,
    submitted,
    trace,
    traces,
)


class Replica:
    """One of them, with the statuses of so many partitions."""

    def __init__(self, pool: Pool, partitions: int = PARTITIONS, recent: RecentRegistrations | None = None) -> None:
        self.epoch = 1
        self._partitions = frozenset(TopicPartition(STATUS.name, number) for number in range(partitions))
        self._pool = pool
        self._recent = recent or RecentRegistrations()

    def assignment(self) -> frozenset[TopicPartition]:
        return self._partitions

    async def take(self, *events: Any) -> list[tuple[int, str]]:
        """(message, status) of what it publishes."""
        said = published([(None, value) for value in await self.values(*events)])
        return [(event.subject.int - message_id(0).int, str(event.data.status)) for event in said]

    async def values(self, *events: Any) -> list[bytes | None]:
        """What it publishes, to the byte."""
        bus = MemoryBus()
        records = [Record(TopicPartition("any", 0), 0, None, None, (), event) for event in events]
        await handle(Batch(records, stream=self), self._pool, bus.producer(), KEY, self._recent)  # pyright: ignore[reportArgumentType]
        return [each.value for each in bus.records(STATUS.name)]


async def lose_all_rows(pool: Pool) -> None:
    """Whoever looks an id up now finds nothing."""
    await pool.execute("DELETE FROM provider_ids")


async def test_a_receipt_of_an_id_registered_before_is_not_looked_up(pool: Pool) -> None:
    replica = Replica(pool)
    assert await replica.take(submitted("a", 1), submitted("b", 2)) == []
    await lose_all_rows(pool)
    assert await replica.take(receipt("b"), receipt("a")) == [(2, "delivered"), (1, "delivered")]


async def test_what_is_at_hand_and_what_is_looked_up_give_the_same_bytes_in_the_messages_trace(pool: Pool) -> None:
    replica, other = Replica(pool), Replica(pool)
    came = [submitted("a", 1), submitted("b", 2), replace(submitted("c", 3), traceparent=None)]
    await replica.take(*came)
    receipts = [receipt(provider_id) for provider_id in "abc"]
    at_hand = await replica.values(*receipts)
    assert await other.values(*receipts) == at_hand
    assert await other.values(*came, *receipts) == at_hand
    said = published([(None, value) for value in at_hand])
    assert traces(said) == [t[3:35] for t in (trace(1), trace(2), TRACE)]
    await lose_all_rows(pool)
    assert await replica.values(*receipts) == at_hand


async def test_it_is_looked_up_where_statuses_come_to_other_replicas_too(pool: Pool) -> None:
    replica = Replica(pool, PARTITIONS - 1)
    await replica.take(submitted("a"))
    await lose_all_rows(pool)
    assert await replica.take(receipt("a")) == []


async def test_it_is_looked_up_after_a_rebalance(pool: Pool) -> None:
    replica = Replica(pool)
    await replica.take(submitted("a"))
    await lose_all_rows(pool)
    replica.epoch += 1
    assert await replica.take(receipt("a")) == []


async def test_only_the_last_ones_are_known(pool: Pool) -> None:
    replica = Replica(pool, recent=RecentRegistrations(size=2))
    for number, provider_id in enumerate("abcde", 1):
        await replica.take(submitted(provider_id, number))
    await lose_all_rows(pool)
    assert await replica.take(*(receipt(provider_id) for provider_id in "abcde")) == [
        (3, "delivered"),
        (4, "delivered"),
        (5, "delivered"),
    ]


@pytest.mark.parametrize("size", [10_000, 1], ids=["known among the newer ones", "known among the older ones"])
async def test_an_id_that_is_given_anew_speaks_of_both_attempts(pool: Pool, size: int) -> None:
    replica = Replica(pool, recent=RecentRegistrations(size))
    await replica.take(submitted("a", 1))
    await replica.take(submitted("b", 3))
    await replica.take(submitted("a", 2, observed_at=seconds(10)))
    assert await replica.take(receipt("a", at=5), receipt("a", at=15)) == [(1, "delivered"), (2, "delivered")]


async def test_a_receipt_with_another_number_may_end_a_doubt_under_a_known_id(pool: Pool) -> None:
    replica = Replica(pool)
    await replica.take(submitted("a", 1))
    await replica.take(in_doubt(7, message=2, destination=OTHER_DESTINATION))
    named = receipt("a", destination=OTHER_DESTINATION.lstrip("+"), reference=7)
    assert await replica.take(named) == [(2, "submitted"), (2, "delivered")]
    repeated = receipt("a", destination=OTHER_DESTINATION.lstrip("+"), at=3)
    assert await replica.take(repeated, receipt("a", at=3)) == [(2, "delivered"), (1, "delivered")]


@pytest.mark.parametrize("partitions", [PARTITIONS, 1])
async def test_a_batch_with_both_needs_no_look_up(pool: Pool, partitions: int) -> None:
    replica = Replica(pool, partitions)
    assert await replica.take(submitted("a"), receipt("a")) == [(1, "delivered")]
