"""Handlers whose faults are answered as problem+json, over real HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import ValidationError
from structlog.testing import capture_logs

from libs.contracts.http.answers import FieldProblem, Problem
from libs.contracts.http.requests import SendSms
from libs.service_kit.internal import TENANT_HEADER
from libs.service_kit.problems import answering, bad_field, invalid, not_known, shown, unavailable

ACME = {TENANT_HEADER: "acme"}


@dataclass
class Ground:
    """What the one handler stands on, and what it does."""

    client: TestClient
    there: str | None = "pool"
    act: Callable[[str, str, web.Request], Awaitable[web.Response]] | None = None

    async def handle(self, needed: str, tenant: str, request: web.Request) -> web.Response:
        assert self.act is not None
        return await self.act(needed, tenant, request)

    async def raising(self, error: Exception, headers: Mapping[str, str] = ACME) -> tuple[Problem, Mapping[str, str]]:
        async def fail(*_: object) -> web.Response:
            raise error

        self.act = fail
        async with self.client.get("/x", headers=headers) as response:
            assert response.content_type == "application/problem+json"
            problem = Problem.model_validate_json(await response.read())
            assert problem.status == response.status
            return problem, response.headers


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    async def handle(needed: str, tenant: str, request: web.Request) -> web.Response:
        return await ground.handle(needed, tenant, request)

    app = web.Application()
    app.router.add_get("/x", answering("the shelf", lambda: ground.there, handle))
    async with TestClient(TestServer(app)) as client:
        ground = Ground(client)
        yield ground


async def test_the_handler_is_given_what_it_needs_and_the_tenant(ground: Ground) -> None:
    async def act(needed: str, tenant: str, request: web.Request) -> web.Response:
        return shown(FieldProblem(field=needed, reason=tenant))

    ground.act = act
    async with ground.client.get("/x", headers=ACME) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        assert await response.json() == {"field": "pool", "reason": "acme"}


async def test_a_problem_says_what_is_wrong_and_which_field(ground: Ground) -> None:
    problem, headers = await ground.raising(bad_field("limit", "is too much"))
    assert (problem.status, problem.title, problem.detail) == (400, "Bad Request", "limit: is too much")
    assert problem.errors == (FieldProblem(field="limit", reason="is too much"),)
    assert "Retry-After" not in headers
    problem, _ = await ground.raising(bad_field("x" * 1000, "is given more than once"))
    assert problem.errors == (FieldProblem(field="x" * 100, reason="is given more than once"),)
    problem, _ = await ground.raising(not_known("batch"))
    assert (problem.status, problem.title, problem.detail) == (404, "Not Found", "no such batch is known")


async def test_fields_are_named_as_on_the_wire_and_values_not_repeated(ground: Ground) -> None:
    with pytest.raises(ValidationError) as caught:
        SendSms.model_validate({"message": "secret", "clientId": "", "sendrId": "secret"})
    problem, _ = await ground.raising(invalid("body", caught.value))
    assert {error.field for error in problem.errors} == {"clientId", "sendrId"}
    assert "secret" not in problem.model_dump_json()
    with pytest.raises(ValidationError) as caught:
        SendSms.model_validate({"message": "secret"})
    problem, _ = await ground.raising(invalid("body", caught.value))
    reason = "exactly one of clientId and staffId is needed"
    assert problem.errors == (FieldProblem(field="body", reason=reason),)
    with pytest.raises(ValidationError) as caught:
        SendSms.model_validate({"x" * 1000 + str(n): n for n in range(100)})
    problem, _ = await ground.raising(invalid("body", caught.value))
    assert (len(problem.errors), max(len(error.field) for error in problem.errors)) == (20, 100)


async def test_a_request_without_tenant_is_refused(ground: Ground) -> None:
    problem, _ = await ground.raising(AssertionError(), headers={})
    assert (problem.status, problem.errors[0].field) == (400, TENANT_HEADER)


async def test_while_something_is_away_it_is_to_be_asked_again(ground: Ground) -> None:
    with capture_logs() as logs:
        for error in (unavailable("ask again"), unavailable("at once", 0), ConnectionRefusedError("10.0.0.1")):
            problem, headers = await ground.raising(error)
            assert (problem.status, headers["Retry-After"]) == (503, "1")
            assert "10.0.0.1" not in (problem.detail or "")
    assert [each["reason"] for each in logs] == ["ConnectionRefusedError"]
    assert "10.0.0.1" not in str(logs)
    ground.there = None
    problem, headers = await ground.raising(AssertionError())
    assert (problem.status, headers["Retry-After"]) == (503, "1")


async def test_a_fault_of_ours_is_none_of_the_request(ground: Ground) -> None:
    async def act(*_: object) -> web.Response:
        raise KeyError("x")

    ground.act = act
    async with ground.client.get("/x", headers=ACME) as response:
        assert response.status == 500
