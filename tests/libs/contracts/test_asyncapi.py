import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from libs.contracts.asyncapi import asyncapi
from libs.contracts.events import EVENT_TYPES, type_name
from libs.contracts.topics import FIXED_TOPICS


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return json.loads(json.dumps(asyncapi()))


def test_every_topic_is_a_channel_with_its_kafka_settings(document: dict[str, Any]) -> None:
    addresses = {c["address"]: c for c in document["channels"].values()}
    assert set(addresses) == {t.name for t in FIXED_TOPICS} | {"sms.dispatch.{gateway}", "sms.dispatch.{gateway}.high"}
    for topic in FIXED_TOPICS:
        channel = addresses[topic.name]
        kafka = channel["bindings"]["kafka"]
        assert kafka["partitions"] == topic.partitions
        assert kafka["topicConfiguration"]["retention.ms"] == topic.retention_ms
        assert channel["x-key"] == topic.key
        assert channel["x-dead-letter"] == topic.dead_letter
        assert kafka["replicas"] == topic.replication


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
    assert references
    for reference in references:
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in place, reference
            place = place[step]


def test_schemas_are_valid_and_the_examples_follow_them(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    messages = document["components"]["messages"]
    assert set(messages) == set(map(type_name, EVENT_TYPES))
    for message in messages.values():
        validator = Draft202012Validator({**document, **message["payload"]})
        for example in message["examples"]:
            validator.validate(example["payload"])


def test_a_schema_refuses_another_event(document: dict[str, Any]) -> None:
    first, second, *_ = document["components"]["messages"].values()
    validator = Draft202012Validator({**document, **first["payload"]})
    assert not validator.is_valid(second["examples"][0]["payload"])


@pytest.mark.parametrize(
    ("person", "taken"), [("502", True), (502, True), (10**64 - 1, True), (10**64, False), (1.5, False), (True, False)]
)
def test_only_a_contact_may_have_an_integer_as_its_id(document: dict[str, Any], person: object, taken: bool) -> None:
    recipient = {"kind": "client", "id": person}
    for schema, expected in (("UpstreamRecipient", taken), ("Recipient", isinstance(person, str))):
        validator = Draft202012Validator({**document, "$ref": f"#/components/schemas/{schema}"})
        assert validator.is_valid(recipient) is expected
