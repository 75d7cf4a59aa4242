"""An outbox that was filled before its tables changed."""

import shutil
from pathlib import Path
from random import Random

import msgspec

from libs.storage.database import open_database
from services.projection.journal import Line, id_of, line_of
from services.projection.rebuild.checking import differences
from services.projection.store import MIGRATIONS, PARTITIONED, SCHEMA
from tests.conftest import DatabaseFactory
from tests.services.projection.conftest import dump, fold_in, journalled
from tests.services.projection.stories import tell


async def test_a_journal_with_a_row_per_event_becomes_one_of_entries(postgres: DatabaseFactory, tmp_path: Path) -> None:
    for migration in MIGRATIONS.glob("000[1-4]_*.sql"):
        shutil.copy(migration, tmp_path)
    dsn, random = await postgres(), Random(5)
    told = [step for number in range(20) for step in tell(random, number)]
    lines = [
        Line(step.event.subject, id_, topic, list(values))
        for step in told
        for id_, topic, values in [line_of(id_of(step.event), step.topic, step.event)]
    ]
    before = await open_database(dsn, SCHEMA, tmp_path, 1, PARTITIONED)
    rows = [(line.message_id, line.event_id.hex(), line.topic, msgspec.msgpack.encode(line.values)) for line in lines]
    await before.copy_records_to_table("events", records=rows)
    await before.close()
    pool = await open_database(dsn, SCHEMA, MIGRATIONS, 2, PARTITIONED)
    assert sorted(await journalled(pool)) == sorted(map(_as_read, lines))
    await fold_in(pool, told)
    as_folded = await dump(pool)
    assert len(as_folded["events"]) == len(told), "no event is kept twice"
    async with pool.acquire() as connection:
        assert [found async for found in differences(connection, lambda _: None)] == []
    await pool.close()


def _as_read(line: Line) -> Line:
    """With the values as MessagePack gives them back."""
    return line._replace(values=msgspec.msgpack.decode(msgspec.msgpack.encode(line.values)))
