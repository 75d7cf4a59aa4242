"""What each route does. Checks are made here; what is true is decided by Kafka, the resolver and the projection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from hashlib import sha256
from uuid import UUID

from pydantic import TypeAdapter

from libs.bus.tracing import child_of
from libs.contracts.events import PersonKind
from libs.contracts.http import MAX_SEGMENTS, PERSON_PATHS, ApiModel, InboundQuery, PersonId, PersonIn, SmsQuery
from libs.sms_text.segments import PART_UNITS, count_segments
from services.api_gateway.accepting import Accepter
from services.api_gateway.calls import Call, parse
from services.api_gateway.plain_sms import parse_sms
from services.api_gateway.problems import bad_field
from services.api_gateway.requests import Named, Repeatable, Request, accepted
from services.api_gateway.responses import Response
from services.api_gateway.upstreams import Upstream

IDEMPOTENCY_KEY = "Idempotency-Key"
TRACEPARENT = b"traceparent"
_IDEMPOTENCY_KEY = IDEMPOTENCY_KEY.lower().encode()
_SURELY_FITS = MAX_SEGMENTS * (PART_UNITS - 1) // 2
"""Characters that fit whatever they are: two units each, and a unit of each segment lost where a pair is not split."""

_person_id: TypeAdapter[str] = TypeAdapter(PersonId)
_message_id = TypeAdapter(UUID)
_printable_ascii = re.compile(r"[\x20-\x7e]{1,255}")
_trace_context = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Services:
    """What handlers work with."""

    accepter: Accepter
    resolver: Upstream
    projection: Upstream
    inbound: Upstream
    default_validity: timedelta
    openapi: bytes
    asyncapi: bytes


def send_sms(services: Services, call: Call) -> None:
    """202 once the message is durable."""
    repeatable_as = _idempotency_key(call)
    body = call.body
    sms = parse_sms(body)
    _check_length(sms.message)
    validity = services.default_validity if sms.validity_seconds is None else timedelta(seconds=sms.validity_seconds)
    trace = call.header(TRACEPARENT)
    traceparent = child_of(trace if trace is not None and _trace_context.fullmatch(trace) else None)
    repeatable = Repeatable(repeatable_as, sha256(body).digest()) if repeatable_as is not None else None
    services.accepter.accept(
        Request(call.caller, sms, validity, traceparent, repeatable), partial(_answer_accepted, call)
    )


def _answer_accepted(call: Call, result: Named | Exception) -> None:
    call.answer(accepted(result) if isinstance(result, Named) else result)


async def get_sms(services: Services, call: Call) -> Response:
    return await services.projection.forward(call, "sms", str(call.parameter("id", _message_id)))


async def list_sms(services: Services, call: Call) -> Response:
    return await services.projection.forward(call, "sms", query=_filters(call, SmsQuery))


async def list_inbound(services: Services, call: Call) -> Response:
    return await services.inbound.forward(call, "inbound", query=_filters(call, InboundQuery))


async def get_inbound(services: Services, call: Call) -> Response:
    return await services.inbound.forward(call, "inbound", str(call.parameter("id", _message_id)))


async def put_person(services: Services, call: Call, *, kind: PersonKind) -> Response:
    person_id = call.parameter("id", _person_id)
    person = parse(PersonIn, call.body)
    body = person.model_dump_json(by_alias=True).encode()
    return await services.resolver.forward(call, PERSON_PATHS[kind], person_id, body=body)


async def get_person(services: Services, call: Call, *, kind: PersonKind) -> Response:
    return await services.resolver.forward(call, PERSON_PATHS[kind], call.parameter("id", _person_id))


async def delete_person(services: Services, call: Call, *, kind: PersonKind) -> Response:
    return await services.resolver.forward(call, PERSON_PATHS[kind], call.parameter("id", _person_id))


def get_openapi(services: Services, call: Call) -> None:
    call.answer(Response(200, services.openapi))


def get_asyncapi(services: Services, call: Call) -> None:
    call.answer(Response(200, services.asyncapi))


def _filters(call: Call, model: type[ApiModel]) -> dict[str, str]:
    """The query as it was given, checked."""
    query = call.query(model).model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    return {name: str(value) for name, value in query.items()}


def _idempotency_key(call: Call) -> str | None:
    """The key within the tenant and API key of the caller."""
    given = call.header(_IDEMPOTENCY_KEY)
    if given is None:
        return None
    if _IDEMPOTENCY_KEY in call.repeated:
        raise bad_field(IDEMPOTENCY_KEY, "is given more than once")
    if not _printable_ascii.fullmatch(given):
        raise bad_field(IDEMPOTENCY_KEY, "must be 1 to 255 printable ASCII characters")
    return f"{call.caller.tenant}/{call.caller.name}/{given}"


def _check_length(text: str) -> None:
    if len(text) <= _SURELY_FITS:
        return
    segments = count_segments(text)
    if segments > MAX_SEGMENTS:
        raise bad_field("message", f"needs {segments} segments; at most {MAX_SEGMENTS} are allowed")
