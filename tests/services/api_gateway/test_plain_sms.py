"""The fast reader of POST /sms takes nothing that the model refuses, and reads what it takes as the model does."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from libs.contracts.http.requests import SendSms
from libs.service_kit.problems import ProblemError
from services.api_gateway.http.calls import parse
from services.api_gateway.plain_sms import PlainSms, parse_sms

FIELDS = tuple(SendSms.model_fields)
ALIASES = tuple(str(field.alias) for field in SendSms.model_fields.values())

values = st.one_of(
    st.text(max_size=70),
    st.sampled_from(
        ["normal", "high", "", "\0", "a\n", "\u2028", "x" * 64, "x" * 65, "x" * 1520, "x" * 1521, "👋" * 64, " \n"]
    ),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.lists(st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)
texts = st.text(min_size=1, max_size=70)
objects = st.one_of(
    st.dictionaries(st.sampled_from((*ALIASES, *FIELDS, "unknown")), values),
    st.builds(lambda rest, message, person: {"message": message, "clientId": person, **rest},
              st.dictionaries(st.sampled_from(ALIASES), values, max_size=2), texts, texts),
)  # fmt: skip


def read(body: bytes) -> object:
    """What the model makes of it: the fields, or the problem."""
    try:
        return {name: getattr(parse(SendSms, body), name) for name in FIELDS}
    except ProblemError as problem:
        return problem.problem


def read_fast(body: bytes) -> object:
    try:
        sms = parse_sms(body)
    except ProblemError as problem:
        return problem.problem
    return {name: getattr(sms, name) for name in FIELDS}


@given(objects.map(lambda found: json.dumps(found).encode()))
@example(b'{"message": "a", "message": "b", "clientId": "1"}')
@example(b'{"message": 5, "message": "b", "clientId": "1"}')
@example(b'{"message": "a", "clientId": "1", "clientId": null, "staffId": "2"}')
@example(b'{"message": " \\n\\u2003", "clientId": "1"}')
@example(b'{"message": "\\ud83d", "clientId": "1"}')
@example(b'{"message": "\xed\xa0\x80", "clientId": "1"}')
@example(b'\xef\xbb\xbf{"message": "a", "clientId": "1"}')
@example(b'{"message": "a", "clientId": "1"} x')
@example(b' {"message": "a", "clientId": "1"}\n')
def test_both_readers_come_to_the_same(body: bytes) -> None:
    assert read_fast(body) == read(body)


@given(st.binary(max_size=60))
def test_both_readers_come_to_the_same_for_any_bytes(body: bytes) -> None:
    assert read_fast(body) == read(body)


@pytest.mark.parametrize("body", [{"clientId": "1"}, {"staffId": "1", "priority": "high", "clientId": None}])
def test_the_usual_body_is_read_fast(body: dict[str, str]) -> None:
    assert isinstance(parse_sms(json.dumps({"message": "Hello", **body}).encode()), PlainSms)
