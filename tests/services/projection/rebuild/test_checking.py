"""What a check finds, and what it takes for equal."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from tests.conftest import DatabaseFactory
from tests.services.projection.conftest import fold_in
from tests.services.projection.rebuild.rebuilding import Outbox, numbers, open_outbox
from tests.services.projection.stories import Story


@pytest.fixture
async def outbox(postgres: DatabaseFactory) -> AsyncIterator[Outbox]:
    async with open_outbox(await postgres(), kafka="") as outbox:
        yield outbox


async def test_a_row_under_another_tenant_than_its_events_is_unfounded_and_theirs_is_missing(outbox: Outbox) -> None:
    story = Story(next(numbers))
    await fold_in(outbox.pool, story.delivered())
    await outbox.pool.execute("UPDATE messages SET tenant = 'clinic'")
    assert await outbox.check() == [f"{story.id} has no events", f"{story.id} is missing", "2 rows differ"]


async def test_a_row_from_before_folds_grew_is_equal_and_one_that_can_not_be_read_is_not(outbox: Outbox) -> None:
    story = Story(next(numbers))
    await fold_in(outbox.pool, story.delivered())
    fold = await outbox.pool.fetchval("SELECT fold FROM messages")
    tenant, kind, person, request, *others = msgspec.msgpack.decode(fold)
    older = msgspec.msgpack.encode((tenant, kind, person, request[:9], *others))
    assert older != fold
    await outbox.pool.execute("UPDATE messages SET fold = $1", older)
    assert await outbox.check() == ["equal"]
    await outbox.pool.execute("UPDATE messages SET fold = $1", fold[:-1])
    assert len(await outbox.check()) == 2


async def test_a_row_without_tags_equals_one_from_before_with_an_empty_array_of_them(outbox: Outbox) -> None:
    await fold_in(outbox.pool, Story(next(numbers), tags=()).delivered())
    assert await outbox.pool.fetchval("SELECT tags FROM messages") is None
    await outbox.pool.execute("UPDATE messages SET tags = '{}'")
    assert await outbox.check() == ["equal"]
    await outbox.pool.execute("UPDATE messages SET tags = '{other}'")
    assert len(await outbox.check()) == 2
