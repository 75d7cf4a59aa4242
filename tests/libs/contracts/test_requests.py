"""What a request may just be; most of what it may not be is tested at the API's door."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from libs.contracts.http.requests import InboundQuery, SendBulk, SendSms, SmsQuery

SMS = {"message": "Hello", "clientId": "1"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("message", "x" * 1520),
        ("clientId", "x" * 64),
        ("clientId", 10**64 - 1),
        ("senderId", "CLINIC 12-3"),
        ("senderId", "+123456789012345"),
        ("tags", ["t" * 64] * 20),
        ("customData", {"least": -(2**63), "greatest": 2**64 - 1}),
        ("validitySeconds", 60),
        ("validitySeconds", 7 * 24 * 3600),
        ("scheduledAt", "2026-01-31T08:00:00.123456789+01:00"),
    ],
)
def test_a_message_may_be_as_long_and_as_great_as_is_said(field: str, value: Any) -> None:
    SendSms.model_validate(SMS | {field: value})


@pytest.mark.parametrize("option", sorted(SendSms.model_fields.keys() - {"message", "client_id"}))
def test_an_option_that_is_null_is_as_if_it_were_left_out(option: str) -> None:
    named = {SendSms.model_fields[option].alias: None}
    assert SendSms.model_validate_json(json.dumps(SMS | named), strict=True) == SendSms.model_validate(SMS)
    Draft202012Validator(SendSms.model_json_schema()).validate(SMS | named)


@pytest.mark.parametrize("number", [1, 10_000])
def test_a_bulk_call_may_have_as_many_messages_as_is_said(number: int) -> None:
    assert len(SendBulk.model_validate({"messages": [SMS] * number}).messages) == number


@pytest.mark.parametrize("number", [0, 10_001])
def test_a_bulk_call_of_no_messages_or_of_more_is_refused(number: int) -> None:
    with pytest.raises(ValidationError):
        SendBulk.model_validate({"messages": [SMS] * number})


@pytest.mark.parametrize("query", [SmsQuery, InboundQuery])
@pytest.mark.parametrize(
    ("field", "value"), [("limit", 1), ("limit", 500), ("number", "1" * 40), ("cursor", "x" * 200)]
)
def test_a_search_may_be_as_long_and_as_great_as_is_said(
    query: type[SmsQuery | InboundQuery], field: str, value: Any
) -> None:
    query.model_validate({field: value})
