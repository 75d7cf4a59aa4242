"""Up to when the outbox knows what was decided; the groups are stand-ins, tests/libs/bus/test_group_progress.py has real ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from aiokafka.structs import TopicPartition

from libs.bus.group_progress import GroupProgress
from libs.storage.database import Pool
from services.resolver.outbox_progress import OutboxProgress

WHERE = TopicPartition("a", 0)


@dataclass
class Group:
    """One partition."""

    end: int = 0
    committed: int = 0

    async def ends(self) -> Mapping[TopicPartition, int]:
        return {WHERE: self.end}

    async def behind(self, ends: Mapping[TopicPartition, int]) -> int:
        return max(0, ends[WHERE] - self.committed)


@dataclass
class Ground:
    pool: Pool
    high: Group
    normal: Group
    projection: Group

    def __post_init__(self) -> None:
        groups = cast(Any, [self.high, self.normal])
        self.progress = OutboxProgress(self.pool, groups, cast(GroupProgress, self.projection))

    async def look(self) -> datetime | None:
        await self.progress.look()
        return self.progress.known_until

    async def now(self) -> datetime:
        return await self.pool.fetchval("SELECT clock_timestamp()")


@pytest.fixture
def ground(pool: Pool) -> Ground:
    return Ground(pool, Group(), Group(), Group())


async def test_where_nothing_is_under_way_all_is_known(ground: Ground) -> None:
    before = await ground.now()
    known = await ground.look()
    assert known is not None and before <= known <= await ground.now()
    later = await ground.look()
    assert later is not None and later > known


@pytest.mark.parametrize("group", ["high", "normal"])
async def test_what_was_asked_for_at_a_moment_must_be_decided_and_then_what_was_published_folded(
    ground: Ground, group: str
) -> None:
    deciding: Group = getattr(ground, group)
    deciding.end = 10
    assert await ground.look() is None
    began = await ground.now()
    deciding.committed, deciding.end = 9, 20
    assert await ground.look() is None
    ground.projection.end = 5  # the decision on the tenth is published
    deciding.committed = 10
    assert await ground.look() is None
    ground.projection.committed, ground.projection.end = 4, 6
    assert await ground.look() is None
    ground.projection.committed = 5
    known = await ground.look()
    assert known is not None and known < began, "it is known up to the moment at which it began to look"


async def test_while_a_change_is_not_committed_nothing_since_its_beginning_counts_as_known(ground: Ground) -> None:
    async with ground.pool.acquire() as changing, changing.transaction():
        changed_at = await changing.fetchval("SELECT clock_timestamp()")
        known = await ground.look()
        assert known is not None and known < changed_at
    known = await ground.look()
    assert known is not None and known > changed_at


async def test_what_others_do_in_the_same_database_holds_up_nothing(ground: Ground) -> None:
    async with ground.pool.acquire() as other, other.transaction():
        await other.execute("SET LOCAL application_name = 'projection'")
        began = await ground.now()
        known = await ground.look()
        assert known is not None and known > began


@pytest.mark.parametrize("looking", [False, True], ids=["known before", "looked for since before"])
async def test_what_was_known_by_another_servers_clock_is_not_known_by_one_that_is_behind(
    ground: Ground, looking: bool
) -> None:
    if looking:
        ground.projection.end = 5
        assert await ground.look() is None
        ground.progress._moment = await ground.now() + timedelta(seconds=5)
        ground.projection.committed = 5
    else:
        ground.progress.known_until = await ground.now() + timedelta(seconds=5)
    ground.normal.end = 10
    assert await ground.look() is None
    ground.normal.committed = 10
    known = await ground.look()
    assert known is not None and known <= await ground.now()


async def test_what_comes_while_it_looks_where_the_topics_end_is_after_what_is_known(ground: Ground) -> None:
    asked_at: list[datetime] = []
    ends = ground.normal.ends

    async def ends_and_more() -> Mapping[TopicPartition, int]:
        found = await ends()
        asked_at.append(await ground.now())  # what is not among the ends comes now, and is decided now
        return found

    ground.normal.ends = ends_and_more
    known = await ground.look()
    assert known is not None and known < asked_at[0]
