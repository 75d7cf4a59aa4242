"""What is written by hand for speed says the same as the contracts' own models."""

import gc
import weakref
from datetime import timedelta
from http import HTTPStatus
from uuid import UUID

import pytest
from pydantic import TypeAdapter

from libs.bus.codec import decoder, encode
from libs.contracts.events import MessageEvent, SmsRequested, person_key
from libs.contracts.http.answers import Accepted
from libs.contracts.http.requests import SendSms
from libs.contracts.topics import REQUESTED
from libs.service_kit.problems import ProblemError
from services.api_gateway.api_keys import Caller
from services.api_gateway.requests import Named, Request, accepted, to_record

CALLER = Caller('na"me', "té/nant", frozenset(), None)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BODIES = [
    {"message": "Hello", "clientId": "17"},
    {
        "message": 'Привет "👋"\n',
        "staffId": "nurse/4",
        "priority": "high",
        "senderId": "CLINIC",
        "tags": ["a", "b"],
        "customData": {"order": 1, "deep": [{"x": None}]},
    },
    {"message": "Later", "clientId": "17", "scheduledAt": "2027-01-31T08:00:00Z"},
]


@pytest.mark.parametrize("body", BODIES)
def test_the_event_is_byte_for_byte_that_of_its_dataclasses(body: dict[str, object]) -> None:
    sms = SendSms.model_validate(body)
    request = Request(CALLER, sms, timedelta(hours=48), TRACE, scheduled_at=sms.scheduled_at)
    message_id, record = to_record(request, 7)
    assert record.value is not None
    event = decoder(REQUESTED)(record.value)
    assert encode(event) == record.value  # so no field is missing, beside or out of place
    assert TypeAdapter(MessageEvent[SmsRequested]).validate_json(record.value) == event
    assert event.subject == message_id
    assert record.key == person_key(CALLER.tenant, event.data.message.recipient)


def test_the_answer_is_byte_for_byte_that_of_its_model() -> None:
    response = accepted(Named(UUID("019b30cb-7a50-7a55-9d3e-2b1f0c8e7a41"), 7))
    model = Accepted.model_validate_json(response.body)
    assert model.model_dump_json(by_alias=True).encode() == response.body
    assert response.headers == {"Location": model.location}


def test_a_request_whose_refusal_was_raised_does_not_stay_in_memory() -> None:
    def refuse(request: Request) -> None:
        assert request.refused is not None
        raise request.refused

    def refused() -> weakref.ref[ProblemError]:
        problem = ProblemError(HTTPStatus.BAD_REQUEST, "no")
        sms = SendSms.model_validate(BODIES[0])
        with pytest.raises(ProblemError):
            refuse(Request(CALLER, sms, timedelta(hours=48), TRACE, refused=problem))
        return weakref.ref(problem)

    problem = refused()
    gc.collect()
    assert problem() is None
