"""The body of a bulk call: taken apart into its items as they stand, or refused by name."""

import json
import tracemalloc
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.service_kit.problems import ProblemError
from services.api_gateway.bulk import body as bulk_body
from services.api_gateway.bulk.body import read_items
from tests.services.api_gateway.fakes import Gateway


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"messages": []}', "messages"),
        (b"{}", "messages"),
        (b'{"messages": null}', "messages"),
        (b'{"messages": {"0": {}}}', "messages"),
        (b'{"messages": [' + b",".join([b"1"] * 10_001) + b"]}", "messages"),
        (b'{"messages": [], "dryRun": true}', "dryRun"),
        (b"[]", "body"),
        (b"5", "body"),
    ],
)
async def test_a_wrong_whole_is_refused_by_name(gateway: Gateway, body: bytes, field: str) -> None:
    answer = await gateway.ask("POST", "/sms/bulk", data=body, headers={"Content-Type": "application/json"})
    assert answer.status == 400
    assert [error["field"] for error in answer.body["errors"]] == [field]


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"messages": [{]}', b'{"messages": ["\\ud83d"', b'{"messages": [\xff]}', b"[" * 100_000]
)
async def test_broken_json_is_refused(gateway: Gateway, body: bytes) -> None:
    answer = await gateway.ask("POST", "/sms/bulk", data=body, headers={"Content-Type": "application/json"})
    assert answer.status == 400
    assert gateway.publisher.records == []


@pytest.mark.parametrize("half", [r"\ud83d", r"\uDE00"])
async def test_a_broken_text_fails_alone(gateway: Gateway, half: str) -> None:
    body = f'{{"messages": [{{"message": "ok", "clientId": "1"}}, {{"message": "half {half}", "clientId": "1"}}]}}'
    answer = await gateway.ask("POST", "/sms/bulk", data=body.encode(), headers={"Content-Type": "application/json"})
    assert (answer.status, answer.body["accepted"], answer.body["rejected"]) == (202, 1, 1)
    assert answer.body["items"][1]["errors"][0]["field"] == "message"


_blanks = st.text(" \t\r\n", max_size=3)
_items = st.recursive(
    st.sampled_from(['"messages"', '""', "1", "11", "{}", "[]", '"],"',
                     r'"\ud83d"', r'"\uDE00"', r'"\\ud83d"', r'"\uD83D\uDE00"', r'"\ue83d"']),
    lambda inner: st.builds("[{},{}]".format, inner, inner) | st.builds('{{"messages": {} }}'.format, inner),
    max_leaves=4,
)  # fmt: skip


@given(st.lists(st.tuples(_blanks, _items, _blanks), min_size=1, max_size=6), _blanks)
def test_every_item_is_read_as_it_stands_whatever_is_cut_off_in_it_or_beside_it(
    items: list[tuple[str, str, str]], blanks: str
) -> None:
    messages = ",".join(map("".join, items))
    body = f'{blanks}{{"messages"{blanks}:{blanks}[{messages}]{blanks}}}{blanks}'
    assert [bytes(item).decode() for item in read_items(body.encode())] == [item for _, item, _ in items]


def test_of_a_list_that_is_given_twice_the_last_counts_whatever_is_cut_off_in_it() -> None:
    body = rb'{"messages": ["\ue83d", 1], "messages": ["\ud83d"]}'
    assert list(map(bytes, read_items(body))) == [rb'"\ud83d"']


async def test_an_item_is_taken_beside_a_broken_text_at_any_length_that_is_taken_without(gateway: Gateway) -> None:
    large = {"message": "a", "clientId": "1", "customData": {"note": "я" * 20_000}}
    good = json.dumps(large, ensure_ascii=False)
    body = f'{{"messages": [{good}, {{"message": "\\ud83d", "clientId": "1"}}]}}'.encode()
    answer = await gateway.ask("POST", "/sms/bulk", data=body, headers={"Content-Type": "application/json"})
    assert (answer.status, answer.body["accepted"], answer.body["rejected"]) == (202, 1, 1)
    (event,) = gateway.publisher.events
    assert event.data.custom_data == large["customData"]


@pytest.mark.parametrize("first", [b"0", rb'"\ud83d"'])
@pytest.mark.parametrize("item", [b"0", b"{}"])
def test_of_too_many_items_no_more_than_needed_are_made_into_objects(first: bytes, item: bytes) -> None:
    body = b'{"messages": [' + first + (b"," + item) * 1_000_000 + b"]}"
    tracemalloc.start()
    with pytest.raises(ProblemError) as refused:
        read_items(body)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.problem.detail == "messages: must hold 1 to 10000 messages"
    assert most < 3 * len(body)


def test_of_too_many_items_none_is_looked_for_in_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object) -> Sequence[msgspec.Raw]:
        raise AssertionError("what follows the items that are taken may be like them, so that a search takes hours")

    monkeypatch.setattr(bulk_body, "_cut", cut)
    body = rb'{"messages": ["\ud83d"' + b",1" * 9_999 + b",12" + b"1" * 1_000 + b"," + b"1" * 2_000 + b"]}"
    with pytest.raises(ProblemError) as refused:
        read_items(body)
    assert refused.value.problem.detail == "messages: must hold 1 to 10000 messages"
