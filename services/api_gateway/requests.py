"""A valid request to send, and the event that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from libs.bus.codec import encode
from libs.bus.port import Outgoing
from libs.bus.quick_events import quick
from libs.contracts.events import Leg, Message, MessageEvent, PersonKind, Recipient, SmsRequested, event_id
from libs.contracts.http.requests import SendSms
from libs.contracts.message_ids import new_message_number, time_of
from libs.contracts.topics import requested
from libs.service_kit.problems import ProblemError
from libs.storage.uuids import quick_uuid
from services.api_gateway.api_keys import Caller
from services.api_gateway.http.responses import Response
from services.api_gateway.plain_sms import PlainSms

SOURCE = "postrider/api_gateway"

_Event, _Requested = quick(MessageEvent[SmsRequested]), quick(SmsRequested)
_Message, _Recipient, _Leg = quick(Message), quick(Recipient), quick(Leg)


@dataclass(frozen=True, slots=True)
class Repeatable:
    """What makes a request repeatable: its key (tenant/API key/Idempotency-Key) and a hash of its body.

    The hash is over the bytes as they came, not over the parsed request: a retry repeats its bytes, and a hash of the parsed form
    would change with the model and refuse honest retries across a new version.
    """

    key: str
    body_hash: bytes


class Request(msgspec.Struct, frozen=True):
    """A request that passed every check. `validity`: for how long it may be sent, from its acceptance or schedule on.

    `refused`: what is wrong with its schedule by now. That is its answer, unless it repeats a request that was accepted before. Once it is
    raised, its traceback leads back to this request, which must therefore be left to the garbage collector (no `gc=False`).
    """

    caller: Caller
    sms: SendSms | PlainSms
    validity: timedelta
    traceparent: str
    repeatable: Repeatable | None = None
    scheduled_at: datetime | None = None
    refused: ProblemError | None = None


class Named(msgspec.Struct, frozen=True, gc=False):
    """What an accepted message is called."""

    message_id: UUID
    number: int


def accepted(message: Named) -> Response:
    """202 with `Accepted` as its body, written by hand: the model takes three times as long."""
    message_id = str(message.message_id)
    location = f"/sms/{message_id}"
    body = f'{{"id":"{message_id}","number":{message.number},"status":"accepted","location":"{location}"}}'
    return Response(202, body.encode(), headers={"Location": location})


def person_of(client_id: str | None, staff_id: str | None) -> tuple[PersonKind, str]:
    """Whom a message is for: one of the two is given."""
    if client_id is not None:
        return PersonKind.CLIENT, client_id
    return PersonKind.STAFF, staff_id or ""


def validity_of(seconds: int | None, default: timedelta) -> timedelta:
    """For how long a message may be sent: as long as its caller said, if they did."""
    return default if seconds is None else timedelta(seconds=seconds)


class Own(msgspec.Struct, frozen=True, gc=False):
    """What an event has of its own; the rest of it may be the same for a whole batch."""

    event_id: str
    message_id: Any
    person: str
    number: Any
    text: str


def to_record(request: Request, number: int) -> tuple[UUID, Outgoing]:
    """A new message id, whose time is the time of acceptance, and the record to publish under it."""
    sms = request.sms
    tenant = request.caller.tenant
    message_id = quick_uuid(new_message_number())
    kind, person = person_of(sms.client_id, sms.staff_id)
    own = Own(event_id(SmsRequested.TYPE, message_id, 1, 1), message_id, person, number, sms.message)
    event = requested_event(request, own, kind, time_of(message_id))
    return message_id, Outgoing(requested(sms.priority).name, f"{tenant}/{kind}/{person}".encode(), encode(event))


def requested_event(
    request: Request,
    own: Own,
    kind: PersonKind,
    accepted_at: datetime,
    batch_id: UUID | None = None,
    batch_size: int | None = None,
) -> MessageEvent[SmsRequested]:
    """An event of the first cycle, to be encoded. In a batch's template words stand for what is an event's own."""
    caller, sms, scheduled_at = request.caller, request.sms, request.scheduled_at
    return _Event(
        id=own.event_id,
        type=SmsRequested.TYPE,
        source=SOURCE,
        time=accepted_at,
        subject=own.message_id,
        data=_Requested(
            message=_Message(
                tenant=caller.tenant,
                recipient=_Recipient(kind, own.person),
                number=own.number,
                text=own.text,
                accepted_at=accepted_at,
                valid_until=(scheduled_at or accepted_at) + request.validity,
                priority=sms.priority,
                sender_id=sms.sender_id,
                tags=sms.tags,
                scheduled_at=scheduled_at,
                batch_id=batch_id,
                batch_size=batch_size,
            ),
            leg=_Leg(1, 1, accepted_at),
            requested_by=caller.name,
            custom_data=sms.custom_data,
        ),
        traceparent=request.traceparent,
    )
