"""The people that may be written to, in Postgres: the one place where a phone number is looked up.

A change is stored if it became true later than what is stored. At the same instant a deletion wins, then the greater phone,
phone problem and name (bytewise), so that the same changes in any order leave the same contact. Over HTTP a change becomes
true when it is stored, hence always after what is there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from libs.bus.errors import BadRecord
from libs.contracts.events import SLUG, ContactChanged, PersonKind, Reason
from libs.contracts.http.requests import MAX_NAME_CHARACTERS, ONE_LINE
from libs.phone_numbers.parse import NumberError, parse
from libs.storage.array_literals import array_literal
from libs.storage.database import Pool

ID = Reason("contact.id", "data: the recipient's id holds a control character")
TENANT = Reason("contact.tenant", f"data: tenant is none that a configuration can name ({SLUG})")
_TENANT, _ID = re.compile(SLUG), re.compile(ONE_LINE)
FIRST, LAST = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)
"""Between these every moment can be stored, read and added to. Beyond them are the "never" and "always" of upstream systems."""


class Person(NamedTuple):
    """Who: unique in all of Postrider."""

    tenant: str
    kind: PersonKind
    id: str


class Contact(NamedTuple):
    """What is known of a person. `phone` is in E.164; `phone_problem` says why the number that came can't be used."""

    phone: str | None
    phone_problem: str | None
    name: str | None
    changed_at: datetime
    deleted: bool


async def find(pool: Pool, people: Collection[Person]) -> Mapping[Person, Contact]:
    """What is known of these people, tombstones included; who was never known is missing."""
    rows = await pool.fetch(_FIND, *map(array_literal, zip(*people, strict=True))) if people else ()
    return {
        Person(tenant, kind, id_): Contact(phone, problem, name, changed_at, deleted)
        for tenant, kind, id_, phone, problem, name, changed_at, deleted in rows
    }


async def get(pool: Pool, person: Person) -> Contact | None:
    """One person as now known; None if unknown or deleted."""
    contact = (await find(pool, (person,))).get(person)
    return None if contact is None or contact.deleted else contact


async def apply_change(pool: Pool, change: ContactChanged, default_region: str | None) -> None:
    """Store a change that an upstream system tells of, unless what is stored is at least as new.

    A number that can't be used is not kept: its problem is, so that messages to this person end with that reason. Of a name are kept as
    many characters as over HTTP, and no NUL. Raises BadRecord for a tenant or an id that no message can have. A moment that is as good
    as never counts as the first or the last that can be kept.
    """
    phone, problem, name = None, None, None
    if not _TENANT.fullmatch(change.tenant):
        raise BadRecord(TENANT)
    if not _ID.fullmatch(change.recipient.id):
        raise BadRecord(ID)
    if not change.deleted:
        name = change.name and change.name.replace("\0", "")[:MAX_NAME_CHARACTERS]
        if change.phone is not None:
            try:
                phone = parse(change.phone, default_region)
            except NumberError as error:
                problem = str(error)
    who = (change.tenant, change.recipient.kind, change.recipient.id)
    changed_at = min(max(change.changed_at, FIRST), LAST)
    await pool.execute(_APPLY, *who, phone, problem, name, changed_at, change.deleted)


async def put(pool: Pool, person: Person, phone: str | None, name: str | None, now: datetime) -> tuple[Contact, bool]:
    """Replace all that is known of the person. Answers the contact and whether the person is new (or was deleted).

    `phone` is in E.164 already.
    """
    rows = await pool.fetch(_PUT, *person, phone, name, now)
    return Contact(phone, None, name, rows[0]["changed_at"], deleted=False), rows[0]["created"]


async def delete(pool: Pool, person: Person, now: datetime) -> bool:
    """Leave a tombstone without number and name. False if the person is unknown or already deleted."""
    return await pool.execute(_DELETE, *person, now) == "UPDATE 1"


# LATERAL with OFFSET 0: one index look-up per person, also by a plan that was made while there were few.
_FIND = """
    SELECT c.tenant, c.kind, c.id, c.phone, c.phone_problem, c.name, c.changed_at, c.deleted
    FROM unnest($1::text::text[], $2::text::text[], $3::text::text[]) AS asked(tenant, kind, id)
    CROSS JOIN LATERAL (
        SELECT * FROM contacts WHERE (tenant, kind, id) = (asked.tenant, asked.kind, asked.id) OFFSET 0
    ) AS c
"""

_APPLY = """
    INSERT INTO contacts AS c (tenant, kind, id, phone, phone_problem, name, changed_at, deleted)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (tenant, kind, id) DO UPDATE
    SET phone = excluded.phone, phone_problem = excluded.phone_problem, name = excluded.name,
        changed_at = excluded.changed_at, deleted = excluded.deleted
    WHERE (excluded.changed_at, excluded.deleted, coalesce(excluded.phone, ''), coalesce(excluded.phone_problem, ''),
           coalesce(excluded.name, ''))
        > (c.changed_at, c.deleted, coalesce(c.phone, ''), coalesce(c.phone_problem, ''), coalesce(c.name, ''))
"""

# Two first PUTs at once may both read as new; what is stored is the later one's either way.
_PUT = """
    WITH before AS (SELECT 1 FROM contacts WHERE tenant = $1 AND kind = $2 AND id = $3 AND NOT deleted)
    INSERT INTO contacts AS c (tenant, kind, id, phone, name, changed_at, deleted)
    VALUES ($1, $2, $3, $4, $5, $6, false)
    ON CONFLICT (tenant, kind, id) DO UPDATE
    SET phone = excluded.phone, phone_problem = NULL, name = excluded.name, deleted = false,
        changed_at = greatest(excluded.changed_at, c.changed_at + interval '1 microsecond')
    RETURNING c.changed_at, NOT EXISTS (SELECT FROM before) AS created
"""

_DELETE = """
    UPDATE contacts AS c
    SET phone = NULL, phone_problem = NULL, name = NULL, deleted = true,
        changed_at = greatest($4, c.changed_at + interval '1 microsecond')
    WHERE tenant = $1 AND kind = $2 AND id = $3 AND NOT deleted
"""
