"""The statements of docs/operating.md, literally, on a database that the services' own migrations and handlers made."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest

from deploy import REPOSITORY
from libs.contracts.events import Encoding
from libs.contracts.statuses import Status
from libs.storage.database import Pool, open_database
from services.api_gateway.main import MIGRATIONS as API
from services.dispatcher.main import MIGRATIONS as DISPATCH
from services.inbound.store import MIGRATIONS as INBOUND
from services.projection.store import MIGRATIONS as OUTBOX
from services.resolver.deciding import Dispatch
from services.resolver.decisions import Coordinates, settle
from services.resolver.main import MIGRATIONS as RESOLVER
from services.scheduler.main import MIGRATIONS as SCHEDULER
from tests.conftest import DatabaseFactory
from tests.services.projection.conftest import fold_in
from tests.services.projection.stories import Story
from tests.services.scheduler.builders import deferred
from tests.services.scheduler.conftest import World

LOST_AT = datetime(2026, 11, 23, 8, 15, tzinfo=UTC)
"""When the database was lost, as the page has it."""


@pytest.fixture
async def pools(postgres: DatabaseFactory) -> AsyncIterator[dict[str, Pool]]:
    """One database with all the schemas that the page speaks of."""
    schemas = {
        "api": API, "dispatch": DISPATCH, "inbound": INBOUND, "outbox": OUTBOX, "resolver": RESOLVER, "scheduler": SCHEDULER
    }  # fmt: skip
    dsn = await postgres()
    async with AsyncExitStack() as stack:
        opened: dict[str, Pool] = {}
        for schema, migrations in schemas.items():
            opened[schema] = await open_database(dsn, schema, migrations, connections=2)
            stack.push_async_callback(opened[schema].close)
        yield opened


def statements(heading: str) -> list[str]:
    """The SQL of one section, block by block."""
    page = (REPOSITORY / "docs" / "operating.md").read_text()
    section = re.split(r"^#{2,3} ", page.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^ *```sql\n(.*?)^ *```", section, re.MULTILINE | re.DOTALL)


async def test_after_a_restore_what_fell_due_meanwhile_does_not_leave_again_and_no_number_is_given_twice(
    pools: dict[str, Pool],
) -> None:
    restore, _ = statements("Backup and restore")
    world = World(pools["scheduler"])
    left, waits = deferred(LOST_AT - timedelta(minutes=1)), deferred(LOST_AT + timedelta(minutes=1))
    await world.take(left, waits)
    given = await pools["api"].fetchval("SELECT nextval('message_numbers')")

    await pools["api"].execute(restore)

    world.now = LOST_AT + timedelta(days=1)
    assert await world.leaving().once() == 1
    assert [event.subject for event in world.returned()] == [waits.subject]
    assert await pools["scheduler"].fetchval("SELECT count(*) FROM events") == 0
    assert await pools["api"].fetchval("SELECT nextval('message_numbers')") > given + 1_000_000_000


async def test_erasing_a_person_leaves_others_alone_and_the_history_of_what_has_not_ended(
    pools: dict[str, Pool],
) -> None:
    (erase,) = statements("Erase a person")
    ended, under_way = (Story(n, tenant="demo", person="17", phone="+254711000017") for n in (1, 2))
    other = Story(3, tenant="demo", person="18")
    stories = [ended, under_way, other]
    told = [event for each in stories for event in (each.requested(), each.dispatched())]
    await fold_in(pools["outbox"], [*told, ended.status(Status.FAILED)])
    decision = Dispatch(LOST_AT, "demo", "+254711000017", "Ann", None, Encoding.GSM7, 1)
    await settle(pools["resolver"], {Coordinates(LOST_AT, each.id, 1, 1): decision for each in stories})

    await pools["api"].execute(erase)

    async def left(table: str) -> set[object]:
        return {row["message_id"] for row in await pools["outbox"].fetch(f"SELECT message_id FROM {table}")}

    assert await left("outbox.personal") == await left("resolver.decisions") == {other.id}
    assert await left("outbox.messages") == await left("outbox.events") == {under_way.id, other.id}


async def test_the_attempts_can_be_asked_what_was_sent(pools: dict[str, Pool]) -> None:
    _, ask = statements("Backup and restore")
    asked = ask.replace("01a1fbef-…", str(Story(1).id))
    assert asked != ask
    assert await pools["api"].fetch(asked) == []
