"""A person's number or name changed: messages that are queued with what was known before are asked to come back.

Which these are the outbox knows, which has them by person; an index of decisions by person would cost every message. It learns of a
dispatch a moment later, and a decision with the old number may be under way while the number changes: so it is asked at once, and
again until it is known to have heard of every decision that was made before the change (`outbox_progress`). Only messages that show another
number or name than is known now are asked back. Whether one can still come back is for its dispatcher to say.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from uuid import UUID

import aiohttp
import msgspec
import structlog

from libs.bus.codec import encode
from libs.bus.port import Outgoing, Publisher
from libs.contracts import topics
from libs.contracts.events import CommandKind, MessageEvent, PersonKind, Recipient, SmsCommand, event_id, person_key
from libs.contracts.statuses import Status
from libs.service_kit.internal import HEADER, TENANT_HEADER
from libs.service_kit.transient import is_transient
from libs.storage.database import Pool
from services.resolver import contacts
from services.resolver.contacts import Person
from services.resolver.outbox_progress import OutboxProgress
from services.resolver.publications import SOURCE

log = structlog.get_logger()

LOOK_SECONDS = 1.0
SECOND_LOOK_SECONDS = 9.0
NEXT_LOOKS_SECONDS = 50.0
"""From the second look to the third, and so on. Mostly the second is the last."""
MOST_SECONDS = 3600.0
"""Longest pause before asking again for a person whom the outbox failed to answer for."""
PEOPLE = 50
LEASE_SECONDS = 15.0
PAGE = 500

_FILTERS = {PersonKind.CLIENT: "clientId", PersonKind.STAFF: "staffId"}


class Queued(msgspec.Struct, rename="camel"):
    """What is needed of the outbox's `Sms`; what a newer outbox says beside it is ignored."""

    id: UUID
    phone: str | None
    person_name: str | None
    cycle: int


class _Page(msgspec.Struct, rename="camel"):
    """The same of its `SmsPage`."""

    items: list[Queued]
    next_cursor: str | None


class Outbox:
    """The projection's list of messages, over its internal HTTP."""

    def __init__(self, base_url: str, token: str, session: aiohttp.ClientSession) -> None:
        self._url = base_url.rstrip("/") + "/internal/sms"
        self._token = token
        self._session = session

    async def queued(self, person: Person) -> AsyncIterator[Queued]:
        """The person's messages that wait at a gateway; none of a bare number, which the outbox has no list for.

        Raises aiohttp's errors, TimeoutError, or msgspec.DecodeError when the answer can't be read.
        """
        if person.kind not in _FILTERS:
            return
        query = {_FILTERS[person.kind]: person.id, "status": Status.QUEUED.value, "limit": str(PAGE)}
        headers = {HEADER: self._token, TENANT_HEADER: person.tenant}
        while True:
            async with self._session.get(self._url, params=query, headers=headers, raise_for_status=True) as answer:
                page = msgspec.json.decode(await answer.read(), type=_Page)
            for sms in page.items:
                yield sms
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor


async def ask_back(
    pool: Pool, publisher: Publisher, outbox: Outbox, progress: OutboxProgress, now: Callable[[], datetime]
) -> None:
    """Look once for each person whose turn it is.

    While the outbox can't be reached nobody is looked for; it is tried again when the lease is over. A person whom it fails to answer for
    is put off, each time for as long again as it has been since the change. While Kafka is away nobody knows what the outbox has heard of,
    so that everybody is looked for once more.
    """
    if await pool.fetchval("SELECT EXISTS (SELECT FROM changed_people)"):
        try:
            await progress.look()
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("the outbox's progress is not known", reason=type(error).__name__)
    known_until = progress.known_until
    for tenant, kind, id_, changed_at, looks in await pool.fetch(_TAKE, PEOPLE, LEASE_SECONDS):
        person = Person(tenant, PersonKind(kind), id_)
        try:
            await _look(person, pool, publisher, outbox, now())
        except aiohttp.ClientConnectionError as error:  # whose words would name the person
            log.warning("the outbox can't be asked", reason=type(error).__name__)
            break
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError, RecursionError) as error:
            log.warning("the outbox did not answer as it should", reason=type(error).__name__)
            await pool.execute(_PUT_OFF, *person, changed_at, MOST_SECONDS)
            continue
        if known_until is not None and changed_at <= known_until:
            await pool.execute(_DONE, *person, changed_at)
        else:
            wait = NEXT_LOOKS_SECONDS if looks else SECOND_LOOK_SECONDS
            await pool.execute(_LOOK_AGAIN, *person, changed_at, wait)


async def _look(person: Person, pool: Pool, publisher: Publisher, outbox: Outbox, now: datetime) -> None:
    contact = await contacts.get(pool, person)
    known = None if contact is None else (contact.phone, contact.name)
    commands = [
        _return(person, sms, now)
        async for sms in outbox.queued(person)
        if sms.phone is not None and (sms.phone, sms.person_name) != known
    ]
    if commands:
        await publisher.publish_many(commands)


def _return(person: Person, sms: Queued, now: datetime) -> Outgoing:
    """`asked_at` is now: it binds whatever was decided until now, with what was known before."""
    recipient = Recipient(person.kind, person.id)
    event = MessageEvent(
        id=event_id(SmsCommand.TYPE, sms.id, CommandKind.RETURN, sms.cycle, now),
        type=SmsCommand.TYPE,
        source=SOURCE,
        time=now,
        subject=sms.id,
        data=SmsCommand(
            tenant=person.tenant, recipient=recipient, kind=CommandKind.RETURN, cycle=sms.cycle, asked_at=now
        ),
    )
    return Outgoing(topics.COMMANDS.name, person_key(person.tenant, recipient), encode(event))


_TAKE = """
    WITH due AS MATERIALIZED (
        SELECT ctid FROM changed_people WHERE next_look <= clock_timestamp()
        ORDER BY next_look LIMIT $1 FOR UPDATE SKIP LOCKED)
    UPDATE changed_people SET next_look = clock_timestamp() + make_interval(secs => $2)
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM due))
    RETURNING tenant, kind, id, changed_at, looks
"""

# A person who changed once more meanwhile has another `changed_at` by now, and is looked for from the beginning.
_LOOK_AGAIN = """
    UPDATE changed_people SET looks = looks + 1, next_look = clock_timestamp() + make_interval(secs => $5)
    WHERE (tenant, kind, id, changed_at) = ($1, $2, $3, $4)
"""

# The time since the change doubles from look to look.
_PUT_OFF = """
    UPDATE changed_people
    SET next_look = greatest(next_look, clock_timestamp() + least(clock_timestamp() - changed_at, make_interval(secs => $5)))
    WHERE (tenant, kind, id, changed_at) = ($1, $2, $3, $4)
"""

_DONE = "DELETE FROM changed_people WHERE (tenant, kind, id, changed_at) = ($1, $2, $3, $4)"
