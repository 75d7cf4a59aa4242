from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import aiohttp
import pytest

from libs.contracts.events import PersonKind
from libs.service_kit.internal import HEADER, TENANT_HEADER
from libs.service_kit.ops_server import Health, start_ops_server
from libs.storage.database import Pool
from services.resolver import contacts
from services.resolver.contacts import Person
from services.resolver.people_api import PeopleApi
from tests.services.resolver.builders import NOW, PHONE, contact_changed

TOKEN = "a token of the services"
_ids = count(1)


@dataclass
class Answer:
    status: int
    type: str
    body: Any


class Client:
    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._port = port

    async def __call__(
        self, method: str, path: str, body: object = None, *, tenant: str | None = "acme", token: str = TOKEN
    ) -> Answer:
        headers = {HEADER: token} | ({TENANT_HEADER: tenant} if tenant else {})
        content: dict[str, Any] = {"data": body} if isinstance(body, str | bytes) else {"json": body}
        url = f"http://127.0.0.1:{self._port}/internal/{path}"
        async with self._session.request(method, url, headers=headers, **content) as response:
            read = await response.json(content_type=None) if "json" in response.content_type else None
            return Answer(response.status, response.content_type, read)


@pytest.fixture(scope="module")
async def client(pool: Pool) -> AsyncIterator[Client]:
    api = PeopleApi("KE", now=lambda: NOW)
    api.pool = pool
    runner = await start_ops_server("127.0.0.1", 0, TOKEN, Health(), api.routes())
    async with aiohttp.ClientSession() as session:
        yield Client(session, runner.addresses[0][1])
    await runner.cleanup()


@pytest.fixture
def id_() -> str:
    return f"a{next(_ids)}"


@pytest.mark.parametrize("path", ["clients", "staff"])
async def test_a_person_is_put_read_and_deleted(client: Client, id_: str, path: str):
    known = {
        "id": id_,
        "phone": PHONE,
        "phoneProblem": None,
        "name": "Jane Doe",
        "changedAt": "2026-11-21T08:30:15.250001Z",
    }
    created = await client("PUT", f"{path}/{id_}", {"phone": "0712 345 678", "name": "Jane Doe"})
    assert created == Answer(201, "application/json", known)
    assert await client("GET", f"{path}/{id_}") == Answer(200, "application/json", known)
    replaced = await client("PUT", f"{path}/{id_}", {"phone": None})
    assert (replaced.status, replaced.body["phone"], replaced.body["name"]) == (200, None, None)
    assert (await client("DELETE", f"{path}/{id_}")).status == 204
    assert (await client("GET", f"{path}/{id_}")).status == 404
    assert (await client("DELETE", f"{path}/{id_}")).status == 404
    assert (await client("PUT", f"{path}/{id_}", {})).status == 201


async def test_a_put_is_committed_when_it_is_answered(client: Client, pool: Pool, id_: str):
    await client("PUT", f"clients/{id_}", {"phone": PHONE})
    found = await contacts.get(pool, Person("acme", PersonKind.CLIENT, id_))
    assert found is not None
    assert found.phone == PHONE


async def test_a_number_that_cannot_be_used_is_refused_with_the_field_and_why_but_not_echoed(
    client: Client, pool: Pool, id_: str
):
    answer = await client("PUT", f"clients/{id_}", {"phone": "071299"})
    assert answer == Answer(
        400,
        "application/problem+json",
        {
            "type": "about:blank",
            "title": "Bad Request",
            "status": 400,
            "detail": "phone: no such number exists in its country",
            "errors": [{"field": "phone", "reason": "no such number exists in its country"}],
        },
    )
    assert "071299" not in str(answer)
    assert await contacts.get(pool, Person("acme", PersonKind.CLIENT, id_)) is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{", "body"),
        ("[]", "body"),
        (b"\xff", "body"),
        ({"phone": 712}, "phone"),
        ({"phone": "1" * 41}, "phone"),
        ({"phone": ""}, "phone"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"fone": PHONE}, "fone"),
    ],
)
async def test_a_bad_body_is_refused_and_the_field_named(client: Client, id_: str, body: object, field: str):
    answer = await client("PUT", f"clients/{id_}", body)
    assert (answer.status, answer.type) == (400, "application/problem+json")
    assert [e["field"] for e in answer.body["errors"]] == [field]


async def test_a_bad_id_is_refused(client: Client):
    for bad in ("x" * 65, "a%00b", "a%0Ab"):
        answer = await client("PUT", f"clients/{bad}", {})
        assert (answer.status, answer.body["errors"][0]["field"]) == (400, "id")


async def test_an_id_may_have_any_printable_character(client: Client, id_: str):
    for written, meant in (("%2F%20ж", "/ ж"), ("%7B6F96%7D", "{6F96}"), ("{}", "{}"), ("%25%3F%23", "%?#")):
        answer = await client("PUT", f"clients/{id_}{written}", {})
        assert (answer.status, answer.body["id"]) == (201, f"{id_}{meant}")


async def test_unknown_people_and_those_of_other_tenants_are_not_found(client: Client, id_: str):
    await client("PUT", f"clients/{id_}", {"phone": PHONE})
    for path, tenant in ((f"staff/{id_}", "acme"), (f"clients/{id_}", "other"), ("clients/nobody", "acme")):
        for method in ("GET", "DELETE"):
            answer = await client(method, path, tenant=tenant)
            assert (answer.status, answer.type) == (404, "application/problem+json")


async def test_the_problem_of_a_number_from_upstream_is_shown(client: Client, pool: Pool, id_: str):
    await contacts.apply_change(pool, contact_changed(id_, phone="0712").data, "KE")
    answer = await client("GET", f"clients/{id_}")
    assert (answer.body["phone"], answer.body["phoneProblem"]) == (None, "no such number exists in its country")


async def test_only_the_other_services_get_in_and_they_name_the_tenant(client: Client, id_: str):
    assert (await client("GET", f"clients/{id_}", token="wrong")).status == 401
    assert (await client("GET", f"clients/{id_}", tenant=None)).status == 400


async def test_until_postgres_is_there_it_says_so():
    runner = await start_ops_server("127.0.0.1", 0, TOKEN, Health(), PeopleApi(None, now=lambda: NOW).routes())
    async with aiohttp.ClientSession() as session:
        answer = await Client(session, runner.addresses[0][1])("GET", "clients/1")
    await runner.cleanup()
    assert (answer.status, answer.type) == (503, "application/problem+json")
