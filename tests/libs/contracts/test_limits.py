"""Of each limit of what comes in: the last that is taken, and the first that is not."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from libs.contracts.http.model import ApiModel
from libs.contracts.http.requests import InboundQuery, PersonIn, SendSms, SmsQuery

SMS = {"message": "Hello", "clientId": "1"}
MOMENT = "2027-01-31T08:00:00"
WEEK = 7 * 24 * 3600


@pytest.mark.parametrize(
    ("model", "rest", "field", "taken", "refused"),
    [
        (SendSms, SMS, "senderId", "A" * 11, "A" * 12),
        (SendSms, SMS, "senderId", "1" * 15, "1" * 16),
        (SendSms, SMS, "senderId", "+1", "+"),
        (SendSms, SMS, "validitySeconds", 60, 59),
        (SendSms, SMS, "validitySeconds", WEEK, WEEK + 1),
        (SendSms, SMS, "tags", ("t",) * 20, ("t",) * 21),
        (SendSms, SMS, "tags", ("t" * 64,), ("t" * 65,)),
        (SendSms, SMS, "customData", {"a": 2**64 - 1}, {"a": 2**64}),
        (SendSms, SMS, "customData", {"a": -(2**63)}, {"a": -(2**63) - 1}),
        (SendSms, SMS, "scheduledAt", f"{MOMENT}.123456789Z", f"{MOMENT}.1234567890Z"),
        (SmsQuery, {}, "limit", 1, 0),
        (SmsQuery, {}, "limit", 500, 501),
        (InboundQuery, {}, "limit", 1, 0),
        (InboundQuery, {}, "limit", 500, 501),
    ],
)
def test_the_last_is_taken_and_the_next_is_not(
    model: type[ApiModel], rest: Mapping[str, Any], field: str, taken: Any, refused: Any
) -> None:
    model.model_validate({**rest, field: taken})
    with pytest.raises(ValidationError):
        model.model_validate({**rest, field: refused})


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (PersonIn, "phone"),
        (PersonIn, "name"),
        (SmsQuery, "number"),
        (SmsQuery, "cursor"),
        (InboundQuery, "number"),
        (InboundQuery, "cursor"),
    ],
)
def test_what_storage_has_no_place_for_is_refused_at_the_door(model: type[ApiModel], field: str) -> None:
    model.model_validate({field: "1"})
    with pytest.raises(ValidationError, match=r"U\+0000"):
        model.model_validate({field: "1\0"})
