"""A batch's events: of each item as it was asked, whatever stands beside it."""

import json
import math
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import TypeAdapter

from libs.bus.codec import decoder, encode
from libs.bus.port import KeyValue
from libs.contracts.events import MessageEvent, Priority, SmsRequested, person_key
from libs.contracts.message_ids import new_message_id
from libs.contracts.topics import REQUESTED
from libs.service_kit.problems import ProblemError
from services.api_gateway.api_keys import Caller
from services.api_gateway.bulk.batch import MAX_TEMPLATES, Batch
from services.api_gateway.bulk.body import read_items
from services.api_gateway.checks import check_length
from services.api_gateway.plain_sms import parse_sms
from tests.services.api_gateway.test_plain_sms import objects

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def read(batch: Batch, items: Any) -> list[dict[Priority, list[KeyValue]]]:
    for _ in batch.read(read_items(json.dumps({"messages": items}).encode())):
        pass
    return list(batch.chunks())


OPTIONS: list[dict[str, Any]] = [
    {},
    {"priority": "high"},
    {"priority": "normal", "senderId": "CLINIC", "tags": ["a", "mark:text"]},
    {"customData": {"mark:person": ["mark:text", '"%b"', "100 %"]}, "validitySeconds": 600},
    {"customData": {"batch_size": None}, "tags": ["batch_size", '"batch_size":null', "%d"]},
    {"scheduledAt": (datetime.now(UTC) + timedelta(days=30)).isoformat().replace("+00:00", "Z")},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("person", [{"clientId": 'a "b" %s'}, {"staffId": "ню"}])
def test_an_event_is_byte_for_byte_that_of_its_dataclasses_with_all_that_was_asked(
    options: dict[str, Any], person: dict[str, str]
) -> None:
    caller = Caller('na"me', "té/nant", frozenset(), None)
    sent = [{"message": f'{n} mark:person %d 👋 "batch_size":null', **person, **options} for n in range(2)]
    batch = Batch(new_message_id(), 7, caller, validity=timedelta(hours=48), traceparent=TRACE)
    (records,) = read(batch, sent)
    ((priority, (one, two)),) = records.items()
    for index, (key, value) in enumerate((one, two)):
        event = decoder(REQUESTED)(value or b"")
        assert encode(event) == value
        assert TypeAdapter(MessageEvent[SmsRequested]).validate_json(value or b"") == event
        assert key == person_key(caller.tenant, event.data.message.recipient)
        assert event.data.message.text == sent[index]["message"]
        assert event.data.message.batch_size == 2
        assert priority == options.get("priority", "normal")
        assert event.data.custom_data == options.get("customData")
        if "scheduledAt" in options:
            assert event.data.message.scheduled_at == datetime.fromisoformat(options["scheduledAt"])
            assert event.data.message.valid_until - event.data.message.scheduled_at == timedelta(hours=48)


ONE_OPTION: list[dict[str, Any]] = [
    {},
    {"priority": "high"},
    {"senderId": "CLINIC"},
    {"tags": ["a"]},
    {"customData": {"a": 1}},
    {"validitySeconds": 600},
    {"scheduledAt": (datetime.now(UTC) + timedelta(days=30)).isoformat()},
]


def test_each_item_has_its_own_person_and_options_whatever_its_neighbours_have() -> None:
    people = ("clientId", "staffId")
    sent = [{person: "1", **options} for person in people for options in ONE_OPTION]
    batch_id, caller = new_message_id(), Caller("a", "demo", frozenset(), None)

    def asked(*items: dict[str, Any]) -> dict[str, Any]:
        batch = Batch(batch_id, 1, caller, validity=timedelta(hours=48), traceparent=TRACE)
        found: dict[str, Any] = {}
        for priority, records in chain.from_iterable(records.items() for records in read(batch, items)):
            for key, value in records:
                data = decoder(REQUESTED)(value or b"").data
                kept = replace(data.message, number=0, text="", batch_size=0)
                found[data.message.text] = (priority, key, kept, data.custom_data)
        return found

    texts = [{"message": str(n), **item} for n, item in enumerate(sent)]
    alone = [asked(item) for item in texts]
    assert asked(*texts) == {text: found for each in alone for text, found in each.items()}
    assert len({str(found) for each in alone for found in each.values()}) == len(sent)


def test_options_of_every_item_may_differ() -> None:
    caller = Caller("a", "demo", frozenset(), None)
    sent = [{"message": str(n), "clientId": "1", "tags": [f"t{n}"]} for n in range(MAX_TEMPLATES + 5)]
    batch = Batch(new_message_id(), 1, caller, validity=timedelta(hours=48), traceparent=TRACE)
    (records,) = read(batch, sent)
    events = [decoder(REQUESTED)(value or b"") for _, value in records[Priority.NORMAL]]
    assert [event.data.message.tags for event in events] == [(f"t{n}",) for n in range(len(sent))]
    assert {event.data.message.batch_size for event in events} == {len(sent)}
    assert [encode(event) for event in events] == [value for _, value in records[Priority.NORMAL]]


def _is_json(item: dict[str, Any]) -> bool:
    return not any(isinstance(value, float) and not math.isfinite(value) for value in item.values())


@given(st.lists(objects.filter(_is_json), min_size=1, max_size=6))
def test_an_item_is_taken_exactly_when_it_would_be_by_itself(items: list[dict[str, Any]]) -> None:
    """Whatever stands beside it, and however its neighbours' options look."""

    def alone(item: dict[str, Any]) -> bool:
        try:
            check_length(parse_sms(json.dumps(item).encode()).message)
        except ProblemError:
            return False
        return True

    caller = Caller("a", "demo", frozenset(), None)
    batch = Batch(new_message_id(), 1, caller, validity=timedelta(hours=48), traceparent=TRACE)
    expected = sum(map(alone, items))
    with pytest.raises(ProblemError) if not expected else nullcontext():
        read(batch, items)
    assert sum(part.accepted.total() for part in batch.slices()) == expected
