"""Contacts that were stored by an earlier release."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from libs.contracts.events import PersonKind
from libs.storage.database import open_database
from services.resolver import contacts
from services.resolver.contacts import Person
from services.resolver.decisions import PARTITIONED
from tests.conftest import DatabaseFactory
from tests.services.resolver.conftest import MIGRATIONS

LONG, GOOD = Person("t", PersonKind.CLIENT, "long"), Person("t", PersonKind.CLIENT, "good")


async def test_a_number_that_no_event_can_carry_becomes_a_problem(postgres: DatabaseFactory, tmp_path: Path) -> None:
    for migration in MIGRATIONS.glob("000[1-4]_*.sql"):
        shutil.copy(migration, tmp_path)
    dsn, now = await postgres(), datetime.now(UTC)
    before = await open_database(dsn, "resolver", tmp_path, 1, PARTITIONED)
    await contacts.put(before, LONG, "+49301234563287406", "Ada", now)
    await contacts.put(before, GOOD, "+493012345632874", "Ben", now)
    await before.close()
    pool = await open_database(dsn, "resolver", MIGRATIONS, 1, PARTITIONED)
    found = await contacts.find(pool, (LONG, GOOD))
    assert (found[LONG].phone, found[LONG].phone_problem) == (None, "the number is too long")
    assert (found[GOOD].phone, found[GOOD].phone_problem) == ("+493012345632874", None)
    await pool.close()


async def test_changes_of_people_that_cannot_be_are_forgotten(postgres: DatabaseFactory, tmp_path: Path) -> None:
    for migration in MIGRATIONS.glob("000[1-5]_*.sql"):
        shutil.copy(migration, tmp_path)
    dsn = await postgres()
    before = await open_database(dsn, "resolver", tmp_path, 1, PARTITIONED)
    for tenant, person in (("t", "1"), ("t ", "1"), ("t\n", "1"), ("t", "17\r"), ("t", "\x7f")):
        for phone in ("+254711000001", "+254711000002"):
            await contacts.put(before, Person(tenant, PersonKind.CLIENT, person), phone, None, datetime.now(UTC))
    assert await before.fetchval("SELECT count(*) FROM changed_people") == 5
    await before.close()
    pool = await open_database(dsn, "resolver", MIGRATIONS, 1, PARTITIONED)
    assert [tuple(row) for row in await pool.fetch("SELECT tenant, id FROM changed_people")] == [("t", "1")]
    await pool.close()
