"""Every committed example of an event, read by pydantic (which documents it) and by the bus's codec (which the services use)."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from libs.bus.codec import decoder_for, encode
from libs.contracts.asyncapi import EXAMPLES, examples
from libs.contracts.events import EVENT_TYPES, event_class, type_name

CASES = [
    pytest.param(event_type, example, id=f"{type_name(event_type)}-{n}")
    for event_type in EVENT_TYPES
    for n, example in enumerate(examples(event_type))
]


def _as_written(example: dict[str, Any]) -> bytes:
    return json.dumps(example).encode()


def test_each_event_type_has_its_examples_and_nothing_else_is_there() -> None:
    assert {file.name for file in EXAMPLES.iterdir()} == {f"{type_name(t)}.json" for t in EVENT_TYPES}
    for event_type in EVENT_TYPES:
        smallest, *others = examples(event_type)
        assert others, f"{type_name(event_type)} has only one example"
        assert all(len(smallest["data"]) <= len(other["data"]) for other in others)


@pytest.mark.parametrize(("event_type", "example"), CASES)
def test_pydantic_and_the_codec_read_the_same_event(event_type: type, example: dict[str, Any]) -> None:
    by_pydantic = TypeAdapter(event_class(event_type)).validate_json(_as_written(example))
    by_codec = decoder_for(event_class(event_type))(_as_written(example))
    assert by_codec == by_pydantic
    assert example["type"] == type_name(event_type)


@pytest.mark.parametrize(("event_type", "example"), CASES)
def test_nothing_is_lost_when_it_is_written_again(event_type: type, example: dict[str, Any]) -> None:
    decode = decoder_for(event_class(event_type))
    event = decode(_as_written(example))
    written = encode(event)
    assert decode(written) == event
    adapter = TypeAdapter(event_class(event_type))
    by_pydantic = adapter.validate_json(written)
    assert by_pydantic == event
    _assert_holds(json.loads(adapter.dump_json(by_pydantic)), example, "$")


@pytest.mark.parametrize(("event_type", "example"), CASES)
def test_fields_that_are_not_known_are_ignored(event_type: type, example: dict[str, Any]) -> None:
    plain = _as_written(example)
    newer = _as_written({**example, "dataschema": "x", "data": {**example["data"], "addedLater": {"a": [1]}}})
    decode = decoder_for(event_class(event_type))
    assert decode(newer) == decode(plain)
    adapter = TypeAdapter(event_class(event_type))
    assert adapter.validate_json(newer) == adapter.validate_json(plain)


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=type_name)
def test_the_last_example_shows_every_field_of_its_data(event_type: type) -> None:
    shown = set().union(*(example["data"] for example in examples(event_type)))
    schema = TypeAdapter(event_type).json_schema()
    assert shown == set(schema["properties"])


def _assert_holds(written: Any, example: Any, path: str) -> None:
    """Every field of the example is in what was written, unchanged; defaults may have been added."""
    if isinstance(example, dict) and isinstance(written, dict):
        for name, value in example.items():
            assert name in written, f"{path}.{name} is gone"
            _assert_holds(written[name], value, f"{path}.{name}")
    else:
        assert written == example, path
