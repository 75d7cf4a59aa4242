"""The resolver's internal HTTP: `PUT`, `GET` and `DELETE` of clients and staff members, for the API gateway.

What a PUT answers is committed, so that a message asked for right after it goes to the new number.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from http import HTTPStatus
from typing import TypeAlias

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import TypeAdapter, ValidationError

from libs.contracts.events import PersonKind
from libs.contracts.http import answers
from libs.contracts.http.problems import reason
from libs.contracts.http.requests import PERSON_PATHS, PersonId, PersonIn
from libs.phone_numbers.parse import NumberError, parse
from libs.service_kit.problems import answering, bad_field, invalid, not_known, shown
from libs.storage.database import Pool
from services.resolver import contacts
from services.resolver.contacts import Contact, Person

_person_id: TypeAdapter[str] = TypeAdapter(PersonId)
_WORDS = {PersonKind.CLIENT: "client", PersonKind.STAFF: "staff member"}


class PeopleApi:
    """The routes are there from the start, so that health can be asked; they answer 503 until `pool` is set."""

    def __init__(self, default_region: str | None, now: Callable[[], datetime]) -> None:
        self.pool: Pool | None = None
        self._default_region = default_region
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        found: list[web.RouteDef] = []
        for kind, path in PERSON_PATHS.items():
            address = f"/internal/{path}/{{id:[^/]+}}"  # aiohttp's own pattern leaves out braces
            found += [
                web.put(address, self._answering(kind, self._put)),
                web.get(address, self._answering(kind, self._get), allow_head=False),
                web.delete(address, self._answering(kind, self._delete)),
            ]
        return found

    async def _put(self, pool: Pool, person: Person, request: web.Request) -> web.Response:
        asked = await _body(request)
        phone = None
        if asked.phone is not None:
            try:
                phone = parse(asked.phone, self._default_region)
            except NumberError as error:
                raise bad_field("phone", str(error)) from None
        contact, created = await contacts.put(pool, person, phone, asked.name, self._now())
        return _found(person, contact, HTTPStatus.CREATED if created else HTTPStatus.OK)

    async def _get(self, pool: Pool, person: Person, request: web.Request) -> web.Response:
        contact = await contacts.get(pool, person)
        if contact is None:
            raise not_known(_WORDS[person.kind])
        return _found(person, contact)

    async def _delete(self, pool: Pool, person: Person, request: web.Request) -> web.Response:
        if not await contacts.delete(pool, person, self._now()):
            raise not_known(_WORDS[person.kind])
        return web.Response(status=204)

    def _answering(self, kind: PersonKind, act: _Act) -> Handler:
        async def named(pool: Pool, tenant: str, request: web.Request) -> web.Response:
            try:
                person = Person(tenant, kind, _person_id.validate_python(request.match_info["id"]))
            except ValidationError as error:
                raise bad_field("id", reason(error.errors(include_input=False)[0])) from None
            return await act(pool, person, request)

        return answering("contacts", lambda: self.pool, named)


_Act: TypeAlias = Callable[[Pool, Person, web.Request], Awaitable[web.Response]]


async def _body(request: web.Request) -> PersonIn:
    raw = await request.read()
    try:
        return PersonIn.model_validate_json(raw)
    except ValidationError as error:
        raise invalid("body", error) from None


def _found(person: Person, contact: Contact, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    known = answers.Person(
        id=person.id,
        phone=contact.phone,
        phone_problem=contact.phone_problem,
        name=contact.name,
        changed_at=contact.changed_at,
    )
    return shown(known, status)
