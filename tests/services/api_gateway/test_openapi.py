import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from libs.contracts.statuses import Status
from libs.service_kit.problems import ProblemError
from services.api_gateway.http import connection
from services.api_gateway.openapi import openapi
from services.api_gateway.plain_sms import parse_sms
from services.api_gateway.routes import ROUTES, Route
from tests.services.api_gateway.fakes import ALL_KEY, Gateway
from tests.services.api_gateway.raw_client import Client, get

HTTP_PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return json.loads(json.dumps(openapi(ROUTES)))


def test_every_route_is_described(document: dict[str, Any]) -> None:
    described = {(m.upper(), path) for path, methods in document["paths"].items() for m in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)


def test_what_is_open_to_all_and_what_needs_which_scope_is_said(document: dict[str, Any]) -> None:
    security = {
        (m.upper(), path): o["security"] for path, methods in document["paths"].items() for m, o in methods.items()
    }
    people = {
        (method, f"/{people}/{{id}}"): scope
        for people in ("clients", "staff")
        for method, scope in (("PUT", "contacts:write"), ("GET", "contacts:read"), ("DELETE", "contacts:write"))
    }
    scopes = {
        ("POST", "/sms"): "sms:send",
        ("POST", "/sms/bulk"): "sms:send",
        ("POST", "/sms/{id}/resend"): "sms:send",
        ("GET", "/sms"): "sms:read",
        ("GET", "/sms/{id}"): "sms:read",
        ("GET", "/batches/{id}"): "sms:read",
        ("DELETE", "/sms/{id}"): "sms:cancel",
        ("POST", "/sms/{id}/outcome"): "sms:outcome",
        ("GET", "/inbound"): "inbound:read",
        ("GET", "/inbound/{id}"): "inbound:read",
        **people,
    }
    open_to_all = {("GET", "/openapi.json"): [], ("GET", "/asyncapi.json"): []}
    assert security == {**{route: [{"apiKey": [scope]}] for route, scope in scopes.items()}, **open_to_all}


def test_which_answers_each_operation_may_have_is_said(document: dict[str, Any]) -> None:
    any_call = {400, 408, 413, 417, 500}
    with_key = any_call | {401, 403, 429, 503}
    reads = ("/sms/{id}", "/batches/{id}", "/inbound/{id}", "/clients/{id}", "/staff/{id}")
    people = {
        (method, f"/{people}/{{id}}"): statuses
        for people in ("clients", "staff")
        for method, statuses in (("PUT", {200, 201, 415}), ("DELETE", {204, 404}))
    }
    statuses = {
        ("POST", "/sms"): {202, 409, 415, 422},
        ("POST", "/sms/bulk"): {202, 409, 415, 422},
        ("POST", "/sms/{id}/resend"): {202, 404, 409},
        ("POST", "/sms/{id}/outcome"): {202, 404, 409, 415},
        ("DELETE", "/sms/{id}"): {202, 404},
        ("GET", "/sms"): {200},
        ("GET", "/inbound"): {200},
        **{("GET", path): {200, 404} for path in reads},
        **people,
    }
    expected = {route: own | with_key for route, own in statuses.items()}
    for path in ("/openapi.json", "/asyncapi.json"):
        expected["GET", path] = {200} | any_call
    described = {
        (m.upper(), path): set(map(int, o["responses"]))
        for path, methods in document["paths"].items()
        for m, o in methods.items()
    }
    assert described == expected


def test_every_reference_leads_somewhere_and_schemas_are_valid(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    references = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= set(schemas)
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)


def test_every_operation_has_what_openapi_asks_for(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["responses"]
            in_path = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))
            for status, response in operation["responses"].items():
                assert response["description"]
                headers = {202: {"Location"}, 409: {"Retry-After"}, 429: {"Retry-After"}, 503: {"Retry-After"}}
                assert set(response.get("headers", {})) == headers.get(int(status), set())
                if int(status) >= 400:
                    assert list(response["content"]) == [HTTP_PROBLEM]


def test_bodies_and_filters_are_the_models_that_validate(document: dict[str, Any]) -> None:
    body = document["components"]["schemas"]["SendSms"]
    assert {"message", "clientId", "staffId", "validitySeconds", "customData"} <= set(body["properties"])
    assert body["additionalProperties"] is False
    for path in ("/sms", "/sms/bulk"):
        assert [p["name"] for p in document["paths"][path]["post"]["parameters"]] == ["Idempotency-Key"]
    filters = {p["name"] for p in document["paths"]["/sms"]["get"]["parameters"]}
    assert filters == {
        "clientId", "staffId", "status", "from", "to", "gateway", "number", "tag", "batchId", "limit", "cursor",
    }  # fmt: skip


def test_messages_are_asked_for_by_what_they_are_shown_as(document: dict[str, Any]) -> None:
    (filter_,) = (p["schema"] for p in document["paths"]["/sms"]["get"]["parameters"] if p["name"] == "status")
    (words,) = (choice["enum"] for choice in filter_["anyOf"] if "enum" in choice)
    assert words == [status for status in Status if status is not Status.REFUSED]


PERSONS: tuple[tuple[dict[str, Any], bool], ...] = (
    ({}, False),
    ({"clientId": None}, False),
    ({"clientId": None, "staffId": None}, False),
    ({"clientId": "1", "staffId": "2"}, False),
    ({"clientId": 1, "staffId": 2}, False),
    ({"clientId": "1", "staffId": None}, True),
    ({"clientId": None, "staffId": 2}, True),
    ({"clientId": ""}, False),
    ({"clientId": "x" * 64}, True),
    ({"clientId": "x" * 65}, False),
    ({"staffId": "👋" * 64}, True),
    ({"staffId": "a\x07b"}, False),
    ({"staffId": "a\x7f"}, False),
    ({"clientId": 10**64 - 1}, True),
    ({"clientId": 10**64}, False),
    ({"clientId": 10**70}, False),
    ({"staffId": 1 - 10**63}, True),
    ({"staffId": -(10**63)}, False),
    ({"clientId": True}, False),
    ({"clientId": 1.5}, False),
    ({"clientId": ["1"]}, False),
)


@pytest.mark.parametrize(("person", "taken"), PERSONS)
def test_the_schema_of_a_message_and_its_reader_take_the_same_persons(
    document: dict[str, Any], person: dict[str, Any], taken: bool
) -> None:
    body = {"message": "Hello", **person}
    schema = {**document, "$ref": "#/components/schemas/SendSms"}
    assert Draft202012Validator(schema).is_valid(body) is taken
    assert _is_read(body) is taken


@pytest.mark.parametrize(
    ("text", "taken"), [("", False), (" \r\n", False), ("\u00a0\u3000", False), (" .\n", True), ("\u200b", True)]
)
def test_the_schema_of_a_message_and_its_reader_take_the_same_texts(
    document: dict[str, Any], text: str, taken: bool
) -> None:
    body = {"message": text, "clientId": "1"}
    schema = {**document, "$ref": "#/components/schemas/SendSms"}
    assert Draft202012Validator(schema).is_valid(body) is taken
    assert _is_read(body) is taken


def _is_read(body: dict[str, Any]) -> bool:
    try:
        parse_sms(json.dumps(body).encode())
    except ProblemError:
        return False
    return True


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
async def test_what_the_connection_itself_answers_is_said_of_every_operation(
    gateway: Gateway, document: dict[str, Any], route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = document["paths"][route.path][route.method.lower()]["responses"]
    path = re.sub(r"{\w+}", "1", route.path).encode()
    json_body = b"Content-Type: application/json\r\n"
    for more, status in (
        (b"Host: y\r\n", 400),
        (b"Content-Length: 99999999\r\n", 413),
        (b"Content-Length: 2\r\nExpect: much\r\n", 417),
        (b"Content-Length: 2\r\n", 408),
    ):
        client = await Client.connect(gateway)
        client.send(get(path, json_body + more, method=route.method.encode()))
        if status == 408:
            monkeypatch.setattr(connection, "BODY_SECONDS", 0.0)
        assert (await client.answer())[0] == status
        assert str(status) in described
        client.close()


async def test_real_answers_follow_their_schemas(gateway: Gateway, document: dict[str, Any]) -> None:
    accepted = await gateway.send()
    refused = await gateway.send({})
    for answer, schema in ((accepted, "Accepted"), (refused, "Problem")):
        Draft202012Validator({**document, "$ref": f"#/components/schemas/{schema}"}).validate(answer.body)
    served = await gateway.ask("GET", "/openapi.json", key=ALL_KEY)
    assert served.body == document
