"""What a refused request is told, without its values."""

import pytest
from pydantic import ValidationError

from libs.contracts.http.model import ApiModel
from libs.contracts.http.problems import MAX_FIELDS, fields_of, wrong
from libs.contracts.http.requests import InboundQuery, PersonIn, SendSms, SmsQuery


class _Asked(ApiModel):
    name: str
    times: int = 1


def _wrong(given: object) -> str:
    with pytest.raises(ValidationError) as refused:
        _Asked.model_validate(given)
    return wrong("body", fields_of("body", refused.value))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "wrong body: name: is needed"),
        ({"name": "a", "nmae": "b"}, "wrong body: nmae: is not known here"),
        ("secret", "wrong body: body: must be a JSON object"),
        (
            dict.fromkeys("abcd", "secret"),
            "wrong body: name: is needed; a: is not known here; b: is not known here; and 2 more",
        ),
    ],
)
def test_each_field_is_named_with_why(given: object, words: str) -> None:
    assert _wrong(given) == words


def test_not_more_than_twenty_are_named() -> None:
    with pytest.raises(ValidationError) as refused:
        _Asked.model_validate({str(n): "secret" for n in range(100)})
    assert len(fields_of("body", refused.value)) == MAX_FIELDS


@pytest.mark.parametrize(
    ("model", "field", "text", "words"),
    [
        (SendSms, "message", "", "at least 1 character"),
        (SendSms, "clientId", "", "at least 1 character"),
        (SendSms, "staffId", "x" * 65, "at most 64 characters"),
        (PersonIn, "phone", "1" * 41, "at most 40 characters"),
        (PersonIn, "name", "x" * 201, "at most 200 characters"),
        (SmsQuery, "clientId", "", "at least 1 character"),
        (SmsQuery, "number", "1" * 41, "at most 40 characters"),
        (SmsQuery, "tag", "", "at least 1 character"),
        (SmsQuery, "cursor", "x" * 201, "at most 200 characters"),
        (InboundQuery, "number", "", "at least 1 character"),
        (InboundQuery, "cursor", "x" * 201, "at most 200 characters"),
    ],
)
def test_how_long_a_text_may_be_is_told_in_characters(model: type[ApiModel], field: str, text: str, words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate({field: text})
    assert {p.field: p.reason for p in fields_of("body", refused.value)}[field] == f"String should have {words}"
