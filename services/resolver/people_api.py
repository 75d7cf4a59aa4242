"""The resolver's internal HTTP: `PUT`, `GET` and `DELETE` of clients and staff members, for the API gateway.

What a PUT answers is committed, so that a message asked for right after it goes to the new number.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TypeAlias

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import TypeAdapter, ValidationError

from libs.bus.errors import is_transient
from libs.contracts import http
from libs.contracts.events import PersonKind
from libs.phone_numbers.parse import NumberError, parse
from libs.service_kit.internal import TENANT_HEADER
from libs.storage.database import Pool
from services.resolver import contacts
from services.resolver.contacts import Contact, Person

log = structlog.get_logger()

_person_id: TypeAdapter[str] = TypeAdapter(http.PersonId)


class _RequestError(Exception):
    """The request can't be done: why, and which fields are to blame."""

    def __init__(self, status: HTTPStatus, detail: str, errors: Iterable[http.FieldProblem] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)


class PeopleApi:
    """The routes are there from the start, so that health can be asked; they answer 503 until `pool` is set."""

    def __init__(self, default_region: str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.pool: Pool | None = None
        self._default_region = default_region
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        found: list[web.RouteDef] = []
        for kind, path in http.PERSON_PATHS.items():
            address = f"/internal/{path}/{{id}}"
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
                raise _wrong("phone", str(error)) from None
        contact, created = await contacts.put(pool, person, phone, asked.name, self._now())
        return _found(person, contact, status=201 if created else 200)

    async def _get(self, pool: Pool, person: Person, request: web.Request) -> web.Response:
        contact = await contacts.get(pool, person)
        if contact is None:
            raise _unknown(person)
        return _found(person, contact)

    async def _delete(self, pool: Pool, person: Person, request: web.Request) -> web.Response:
        if not await contacts.delete(pool, person, self._now()):
            raise _unknown(person)
        return web.Response(status=204)

    def _answering(self, kind: PersonKind, act: _Act) -> Handler:
        """A route's handler: finds the person asked for, and turns what goes wrong into problem+json."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                if self.pool is None:
                    raise _RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "the resolver is starting")
                return await act(self.pool, _person(request, kind), request)
            except _RequestError as error:
                return _problem(error)
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("contact request failed", method=request.method, reason=type(error).__name__)
                return _problem(_RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "contacts can't be reached now"))

        return handle


_Act: TypeAlias = Callable[[Pool, Person, web.Request], Awaitable[web.Response]]


def _person(request: web.Request, kind: PersonKind) -> Person:
    tenant = request.headers.get(TENANT_HEADER)
    if not tenant:
        raise _wrong(TENANT_HEADER, "is missing")
    try:
        return Person(tenant, kind, _person_id.validate_python(request.match_info["id"]))
    except ValidationError as error:
        raise _invalid("id", error) from None


async def _body(request: web.Request) -> http.PersonIn:
    raw = await request.read()
    try:
        return http.PersonIn.model_validate_json(raw)
    except ValidationError as error:
        raise _invalid("body", error) from None


def _wrong(field: str, reason: str) -> _RequestError:
    return _RequestError(HTTPStatus.BAD_REQUEST, f"{field}: {reason}", [http.FieldProblem(field=field, reason=reason)])


def _invalid(whole: str, error: ValidationError) -> _RequestError:
    """Every field that the model refuses; `whole` is named where no one field is to blame."""
    found = error.errors(include_input=False, include_url=False)
    errors = [
        http.FieldProblem(field=".".join(map(str, e["loc"])) or whole, reason=e["msg"].removeprefix("Value error, "))
        for e in found
    ]
    return _RequestError(HTTPStatus.BAD_REQUEST, f"wrong {whole}", errors)


def _unknown(person: Person) -> _RequestError:
    words = {PersonKind.CLIENT: "client", PersonKind.STAFF: "staff member"}
    return _RequestError(HTTPStatus.NOT_FOUND, f"no such {words[person.kind]} is known")


def _found(person: Person, contact: Contact, status: int = 200) -> web.Response:
    body = http.Person(
        id=person.id,
        phone=contact.phone,
        phone_problem=contact.phone_problem,
        name=contact.name,
        changed_at=contact.changed_at,
    )
    return web.Response(status=status, body=body.model_dump_json(by_alias=True), content_type="application/json")


def _problem(error: _RequestError) -> web.Response:
    problem = http.Problem(title=error.status.phrase, status=error.status, detail=error.detail, errors=error.errors)
    return web.Response(
        status=error.status,
        body=problem.model_dump_json(by_alias=True),
        content_type="application/problem+json",
        headers={"Retry-After": "1"} if error.status is HTTPStatus.SERVICE_UNAVAILABLE else None,
    )
