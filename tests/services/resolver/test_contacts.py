from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import count, permutations

import pytest

from libs.bus.errors import BadRecord
from libs.contracts.events import ContactChanged, PersonKind
from libs.storage.database import Pool
from services.resolver import contacts
from services.resolver.contacts import Contact, Person
from tests.services.resolver.builders import NOW, PHONE, contact_changed

LATER = NOW + timedelta(seconds=1)
_ids = count(1)


@pytest.fixture
def person() -> Person:
    return Person("acme", PersonKind.CLIENT, f"p{next(_ids)}")


async def apply(pool: Pool, change: ContactChanged) -> None:
    await contacts.apply_change(pool, change, "KE")


async def stores(pool: Pool, change: ContactChanged) -> bool:
    """Whether applying this change writes a row."""
    rows = [await pool.fetch("SELECT tenant, kind, id, ctid FROM contacts")]
    await apply(pool, change)
    rows.append(await pool.fetch("SELECT tenant, kind, id, ctid FROM contacts"))
    return set(rows[0]) != set(rows[1])


async def known(pool: Pool, person: Person) -> Contact | None:
    return (await contacts.find(pool, [person])).get(person)


async def test_a_number_from_upstream_is_kept_in_e164(pool: Pool, person: Person):
    assert await stores(pool, contact_changed(person.id, phone="0712 345 678").data)
    assert await known(pool, person) == Contact(PHONE, None, "Jane Doe", NOW, deleted=False)


async def test_a_number_that_cannot_be_used_leaves_its_problem_and_not_itself(pool: Pool, person: Person):
    await apply(pool, contact_changed(person.id, phone="0712").data)
    assert await known(pool, person) == Contact(
        None, "no such number exists in its country", "Jane Doe", NOW, deleted=False
    )


async def test_of_a_name_as_much_is_kept_as_over_http(pool: Pool, person: Person):
    await apply(pool, contact_changed(person.id, name="\0J" + "é" * 300_000).data)
    assert await known(pool, person) == Contact(PHONE, None, "J" + "é" * 199, NOW, deleted=False)


@pytest.mark.parametrize("person_id", ["a\0b", "17\r", "17\n", "\x7f"])
async def test_nobody_has_a_control_character_in_the_id(pool: Pool, person_id: str):
    with pytest.raises(BadRecord, match="id holds a control character"):
        await apply(pool, contact_changed(person_id).data)


@pytest.mark.parametrize("tenant", ["", "acme\n", "acme ", "Acme", "a\0b", "x" * 41, "x" * 12_000])
async def test_of_a_tenant_that_no_configuration_can_name_nobody_is_kept(pool: Pool, person: Person, tenant: str):
    with pytest.raises(BadRecord, match="tenant is none that a configuration can name"):
        await apply(pool, replace(contact_changed(person.id).data, tenant=tenant))


async def test_an_older_change_is_ignored(pool: Pool, person: Person):
    await apply(pool, contact_changed(person.id, name="new", changed_at=LATER).data)
    assert not await stores(pool, contact_changed(person.id, name="old", changed_at=NOW).data)
    found = await known(pool, person)
    assert found is not None
    assert (found.name, found.changed_at) == ("new", LATER)


@pytest.mark.parametrize(
    ("never", "kept"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), contacts.FIRST),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=3))), contacts.FIRST),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), contacts.LAST),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-3))), contacts.LAST),
    ],
)
async def test_a_moment_that_means_never_is_the_first_or_last_that_can_be_kept(
    pool: Pool, person: Person, never: datetime, kept: datetime
):
    assert await stores(pool, contact_changed(person.id, changed_at=never).data)
    assert await known(pool, person) == Contact(PHONE, None, "Jane Doe", kept, deleted=False)


async def test_a_repeated_change_changes_nothing(pool: Pool, person: Person):
    assert await stores(pool, contact_changed(person.id).data)
    assert not await stores(pool, contact_changed(person.id).data)


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        (
            [
                {"phone": PHONE, "name": "B"},
                {"phone": PHONE, "name": "A"},
                {"phone": "0712", "name": "A"},
                {"phone": None, "name": None},
            ],
            Contact(PHONE, None, "B", NOW, deleted=False),
        ),
        (
            [{"phone": "0712", "name": "B"}, {"phone": "1" * 41, "name": "A"}, {"phone": None, "name": "C"}],
            Contact(None, "the number is too long", "A", NOW, deleted=False),
        ),
    ],
    ids=["the greater number and then name", "the greater problem before the name"],
)
async def test_changes_of_one_instant_leave_the_same_contact_in_any_order(
    pool: Pool, changes: list[dict[str, str | None]], left: Contact
):
    ends = set[Contact | None]()
    for order in permutations(changes):
        someone = Person("acme", PersonKind.CLIENT, f"p{next(_ids)}")
        for change in order:
            await apply(pool, contact_changed(someone.id, phone=change["phone"], name=change["name"]).data)
        ends.add(await known(pool, someone))
    assert ends == {left}


async def test_a_deletion_leaves_a_tombstone_that_an_older_change_cannot_undo(pool: Pool, person: Person):
    await apply(pool, contact_changed(person.id).data)
    await apply(pool, contact_changed(person.id, changed_at=LATER, deleted=True).data)
    assert not await stores(pool, contact_changed(person.id, changed_at=NOW).data)
    assert await known(pool, person) == Contact(None, None, None, LATER, deleted=True)
    assert await contacts.get(pool, person) is None


async def test_a_deletion_wins_over_a_change_of_the_same_instant(pool: Pool, person: Person):
    await apply(pool, contact_changed(person.id, deleted=True).data)
    assert not await stores(pool, contact_changed(person.id).data)


async def test_a_deletion_of_someone_unknown_is_remembered(pool: Pool, person: Person):
    await apply(pool, contact_changed(person.id, changed_at=LATER, deleted=True).data)
    assert not await stores(pool, contact_changed(person.id, changed_at=NOW).data)


async def test_a_put_always_comes_after_what_is_stored(pool: Pool, person: Person):
    from_the_future = NOW + timedelta(days=365)
    await apply(pool, contact_changed(person.id, changed_at=from_the_future).data)
    put, created = await contacts.put(pool, person, "+254700000001", "Jane", NOW)
    assert not created
    assert put == await known(pool, person)
    assert put == Contact("+254700000001", None, "Jane", from_the_future + timedelta(microseconds=1), deleted=False)


async def test_so_does_a_delete_and_what_was_stored_before_cannot_bring_the_person_back(pool: Pool, person: Person):
    from_the_future = contact_changed(person.id, changed_at=NOW + timedelta(days=365)).data
    await apply(pool, from_the_future)
    assert await contacts.delete(pool, person, NOW)
    assert not await stores(pool, from_the_future)
    assert await contacts.get(pool, person) is None


async def test_a_put_clears_the_problem_of_the_number_before(pool: Pool, person: Person):
    await apply(pool, contact_changed(person.id, phone="0712").data)
    put, _ = await contacts.put(pool, person, None, None, LATER)
    assert put == await known(pool, person) == Contact(None, None, None, LATER, deleted=False)


async def test_a_put_brings_a_deleted_person_back_as_new(pool: Pool, person: Person):
    assert (await contacts.put(pool, person, PHONE, None, NOW))[1]
    assert await contacts.delete(pool, person, LATER)
    assert not await contacts.delete(pool, person, LATER)
    assert (await contacts.put(pool, person, PHONE, None, LATER))[1]
    assert await contacts.get(pool, person) is not None


async def test_people_of_other_tenants_and_kinds_are_others(pool: Pool, person: Person):
    await contacts.put(pool, person, PHONE, None, NOW)
    others = [person._replace(tenant="other"), person._replace(kind=PersonKind.STAFF)]
    assert await contacts.find(pool, [person, *others]) == {person: Contact(PHONE, None, None, NOW, deleted=False)}


async def test_a_plan_that_was_made_while_hardly_anybody_was_known_looks_up_by_key(pool: Pool):
    """A connection keeps its plan while the table grows, until that is analysed."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")  # as after some executions
        await connection.execute(f"PREPARE find (text, text, text) AS {contacts._FIND}")
        rows = await connection.fetch("""EXPLAIN EXECUTE find ('{"acme"}', '{"client"}', '{"p7"}')""")
        await connection.execute("DEALLOCATE find")
    assert "Index Scan using contacts_pkey" in "\n".join(row[0] for row in rows)
