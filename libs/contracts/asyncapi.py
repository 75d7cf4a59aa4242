"""AsyncAPI 3.0 of the topics, made from the same declarations that create the topics and read their events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from libs.contracts.events import EVENT_TYPES, Priority, event_class, type_name
from libs.contracts.topics import FIXED_TOPICS, Topic, dispatch

EXAMPLES = Path(__file__).parent / "examples"

_SCHEMAS = "#/components/schemas/"
_GATEWAY = "{gateway}"


def examples(data: type) -> list[dict[str, Any]]:
    """The committed examples of the events with this data, the smallest first."""
    found: list[dict[str, Any]] = json.loads((EXAMPLES / f"{type_name(data)}.json").read_text())
    return found


def asyncapi() -> dict[str, Any]:
    """The document. Dispatch topics are described once, with the gateway as a parameter."""
    schemas: dict[str, Any] = {}
    messages = {type_name(data): _message(data, schemas) for data in EVENT_TYPES}
    topics = (*FIXED_TOPICS, *(dispatch(_GATEWAY, priority) for priority in Priority))
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Postrider events",
            "version": "1",
            "description": "Each record's value is a whole CloudEvent in JSON. Consumers ignore fields they do not know; an additive"
            " change keeps the version in `type`, a breaking change is a new type. What can't be handled goes to"
            " `<topic>.dead-letter`.",
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": {_channel_name(topic): _channel(topic) for topic in topics},
        "components": {"messages": messages, "schemas": dict(sorted(schemas.items()))},
    }


def _channel_name(topic: Topic) -> str:
    return topic.name.replace(_GATEWAY, "gateway")


def _channel(topic: Topic) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": topic.name,
        "description": topic.purpose,
        "messages": {topic.data.__name__: {"$ref": f"#/components/messages/{type_name(topic.data)}"}},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "replicas": topic.replication,
                "topicConfiguration": {
                    "cleanup.policy": ["delete"],
                    "retention.ms": topic.retention_ms,
                    "max.message.bytes": int(topic.config()["max.message.bytes"]),
                },
                "bindingVersion": "0.5.0",
            }
        },
        "x-key": topic.key,
        "x-dead-letter": topic.dead_letter,
    }
    if _GATEWAY in topic.name:
        channel["parameters"] = {"gateway": {"description": "the gateway's id, [a-z0-9-]{1,40}"}}
    return channel


def _message(data: type, schemas: dict[str, Any]) -> dict[str, Any]:
    """One event type as a message; its schema and those that it refers to are added to `schemas`."""
    name = type_name(data)
    schema = TypeAdapter(event_class(data)).json_schema(ref_template=_SCHEMAS + "{model}")
    for used, definition in schema.pop("$defs", {}).items():
        if schemas.setdefault(used, definition) != definition:
            raise ValueError(f"two different schemas are called {used}")
    properties: dict[str, Any] = schema["properties"]
    properties["type"] = {"const": name}
    envelope = f"{data.__name__}Event"
    schemas[envelope] = {**schema, "title": envelope}
    return {
        "name": name,
        "title": data.__name__,
        "summary": (data.__doc__ or "").strip().split("\n\n")[0],
        "contentType": "application/cloudevents+json",
        "headers": {
            "type": "object",
            "properties": {"content-type": {"const": "application/cloudevents+json"}},
            "required": ["content-type"],
        },
        "payload": {"$ref": _SCHEMAS + envelope},
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": "0.5.0"}},
        "examples": [{"payload": example} for example in examples(data)],
    }
