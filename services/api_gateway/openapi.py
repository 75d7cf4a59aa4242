"""OpenAPI 3.1 of the API, made from the route table and the models that validate."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from libs.contracts.http.answers import Problem
from libs.contracts.http.problems import CONTENT_TYPE as PROBLEM
from services.api_gateway.routes import Route

_SCHEMAS = "#/components/schemas/"
_BEARER = "apiKey"

_ANY_CALL = (400, 408, 413, 417, 500)
"""Most of them are the connection's: it looks at the head and the body of any call, also where no body is wanted."""
_ANY_CALL_WITH_KEY = (401, 403, 429, 503)

_Model = tuple[type[BaseModel], JsonSchemaMode]


def openapi(routes: Iterable[Route]) -> dict[str, Any]:
    """The document."""
    routes = tuple(routes)
    models = sorted(_models(routes), key=str)
    found, definitions = models_json_schema(models, ref_template=_SCHEMAS + "{model}")
    references = {model: found[model] for model in models}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Postrider",
            "version": "1",
            "description": "Sends SMS to people, not to numbers. Every error is application/problem+json (RFC 9457).",
        },
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {_BEARER: {"type": "http", "scheme": "bearer", "description": "an API key"}},
        },
    }


def _models(routes: Iterable[Route]) -> set[_Model]:
    """Each model with what it is used for: what is read (validation) may look different from what is answered (serialization)."""
    found: set[_Model] = {(Problem, "serialization")}
    for route in routes:
        found |= {(model, "validation") for model in (route.body, route.query) if model is not None}
        found |= {(model, "serialization") for model in route.answers.values() if model is not None}
    return found


def _operation(route: Route, references: dict[_Model, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route, references),
        "security": [{_BEARER: [route.scope]}] if route.scope is not None else [],
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": references[route.body, "validation"]}},
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": step[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
        for step in route.path.split("/")
        if step.startswith("{")
    ]
    for name, description in (route.headers or {}).items():
        found.append({"name": name, "in": "header", "description": description, "schema": {"type": "string"}})
    if route.query is not None:
        schema = route.query.model_json_schema(ref_template=_SCHEMAS + "{model}")
        for name, field in schema["properties"].items():
            found.append({"name": name, "in": "query", "schema": field})
    return found


def _responses(route: Route, references: dict[_Model, dict[str, Any]]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, model in route.answers.items():
        responses[str(status)] = {"description": HTTPStatus(status).phrase}
        if model is not None:
            responses[str(status)]["content"] = {"application/json": {"schema": references[model, "serialization"]}}
            if status == HTTPStatus.ACCEPTED:
                responses[str(status)]["headers"] = {"Location": {"schema": {"type": "string"}}}
    always = _ANY_CALL if route.scope is None else _ANY_CALL + _ANY_CALL_WITH_KEY
    for status in sorted({*route.problems, *always}):
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM: {"schema": references[Problem, "serialization"]}},
        }
        if status in (409, 429, 503):
            responses[str(status)]["headers"] = {
                "Retry-After": {"description": "seconds", "schema": {"type": "integer"}}
            }
    return responses
