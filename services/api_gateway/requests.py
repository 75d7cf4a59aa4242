"""A valid request to send, and the event that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from libs.bus.codec import encode
from libs.bus.port import Outgoing
from libs.contracts.events import PersonKind, SmsRequested, event_id
from libs.contracts.http import SendSms
from libs.contracts.message_ids import new_message_id, time_of
from libs.contracts.topics import requested
from services.api_gateway.api_keys import Caller
from services.api_gateway.plain_sms import PlainSms
from services.api_gateway.responses import Response

SOURCE = "postrider/api_gateway"


@dataclass(frozen=True, slots=True)
class Repeatable:
    """What makes a request repeatable: its key (tenant/API key/Idempotency-Key) and a hash of its body.

    The hash is over the bytes as they came, not over the parsed request: a retry repeats its bytes, and a hash of the parsed form
    would change with the model and refuse honest retries across a new version.
    """

    key: str
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A request that passed every check. `validity`: for how long it may be sent, from its acceptance on."""

    caller: Caller
    sms: SendSms | PlainSms
    validity: timedelta
    traceparent: str
    repeatable: Repeatable | None = None


class Named(NamedTuple):
    """What an accepted message is called."""

    message_id: UUID
    number: int


def accepted(message: Named) -> Response:
    """202 with `Accepted` as its body, written by hand: the model takes three times as long."""
    message_id = str(message.message_id)
    location = f"/sms/{message_id}"
    body = f'{{"id":"{message_id}","number":{message.number},"status":"accepted","location":"{location}"}}'
    return Response(202, body.encode(), headers={"Location": location})


def to_record(request: Request, number: int) -> tuple[UUID, Outgoing]:
    """A new message id, whose time is the time of acceptance, and the record to publish under it: a `MessageEvent[SmsRequested]`.

    Written as a dictionary, since the event's seven dataclasses take three times as long to make; the tests hold it to them.
    """
    sms = request.sms
    caller = request.caller
    message_id = new_message_id()
    accepted_at = time_of(message_id)
    kind, person = (PersonKind.STAFF, sms.staff_id) if sms.client_id is None else (PersonKind.CLIENT, sms.client_id)
    event = {
        "id": event_id(SmsRequested.TYPE, message_id, 1, 1),
        "type": SmsRequested.TYPE,
        "source": SOURCE,
        "time": accepted_at,
        "subject": message_id,
        "data": {
            "message": {
                "tenant": caller.tenant,
                "recipient": {"kind": kind, "id": person},
                "number": number,
                "text": sms.message,
                "accepted_at": accepted_at,
                "valid_until": accepted_at + request.validity,
                "priority": sms.priority,
                "sender_id": sms.sender_id,
                "tags": sms.tags,
                "allow_unknown_number": False,
            },
            "leg": {"cycle": 1, "leg": 1, "leg_at": accepted_at},
            "requested_by": caller.name,
            "custom_data": sms.custom_data,
        },
        "traceparent": request.traceparent,
        "specversion": "1.0",
        "datacontenttype": "application/json",
    }
    key = f"{caller.tenant}/{kind}/{person}".encode()
    return message_id, Outgoing(requested(sms.priority).name, key, encode(event))
