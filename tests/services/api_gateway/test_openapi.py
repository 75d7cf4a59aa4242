import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from services.api_gateway.openapi import openapi
from services.api_gateway.routes import ROUTES
from tests.services.api_gateway.fakes import ALL_KEY, Gateway

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
    assert security["POST", "/sms"] == [{"apiKey": ["sms:send"]}]
    assert security["PUT", "/clients/{id}"] == [{"apiKey": ["contacts:write"]}]
    assert [path for (_, path), needed in security.items() if not needed] == ["/openapi.json", "/asyncapi.json"]


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
                if int(status) >= 400:
                    assert list(response["content"]) == [HTTP_PROBLEM]


def test_bodies_and_filters_are_the_models_that_validate(document: dict[str, Any]) -> None:
    body = document["components"]["schemas"]["SendSms"]
    assert {"message", "clientId", "staffId", "validitySeconds", "customData"} <= set(body["properties"])
    assert body["additionalProperties"] is False
    filters = {p["name"] for p in document["paths"]["/sms"]["get"]["parameters"]}
    assert filters == {
        "clientId", "staffId", "status", "from", "to", "gateway", "number", "tag", "batchId", "limit", "cursor",
    }  # fmt: skip


async def test_real_answers_follow_their_schemas(gateway: Gateway, document: dict[str, Any]) -> None:
    accepted = await gateway.send()
    refused = await gateway.send({})
    for answer, schema in ((accepted, "Accepted"), (refused, "Problem")):
        Draft202012Validator({**document, "$ref": f"#/components/schemas/{schema}"}).validate(answer.body)
    served = await gateway.ask("GET", "/openapi.json", key=ALL_KEY)
    assert served.body == document
