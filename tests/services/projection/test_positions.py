"""How far each partition is applied, as it is stored."""

from itertools import count

import msgspec
from aiokafka.structs import TopicPartition

from libs.contracts.statuses import Status
from libs.storage.database import Pool
from services.projection import store
from services.projection.handlers import apply_batch
from services.projection.recent import RecentFolds
from services.projection.store import Position
from tests.services.projection.conftest import records
from tests.services.projection.stories import Story


async def test_positions_are_stored_with_the_batch_and_never_go_back(pool: Pool) -> None:
    async def stored() -> dict[TopicPartition, Position]:
        async with pool.acquire() as connection:
            return await store.read_positions(connection)

    requests, statuses = TopicPartition("sms.requested", 2), TopicPartition("sms.status", 0)

    async def applied(source: TopicPartition, offset: int, offsets: dict[TopicPartition, int]) -> None:
        story = Story(next(numbers))
        (record,) = records([story.requested() if source == requests else story.status(Status.SUBMITTED)])
        await apply_batch(
            pool, RecentFolds(10), [msgspec.structs.replace(record, source=source, offset=offset)], offsets
        )

    numbers = count(1)
    await applied(requests, 11, {requests: 10, statuses: 4})  # the one before it waits for others of its message
    assert await stored() == {requests: Position(10, 12), statuses: Position(4, 4)}
    await applied(requests, 8, {requests: 8, statuses: 5})
    assert await stored() == {requests: Position(10, 12), statuses: Position(5, 5)}
    await applied(statuses, 7, {})
    assert await stored() == {requests: Position(10, 12), statuses: Position(5, 8)}
    async with pool.acquire() as connection:  # as at a commit, of what went to the dead letters
        await store.write_positions(connection, {requests: Position(11, 11)})
    assert await stored() == {requests: Position(11, 12), statuses: Position(5, 8)}
