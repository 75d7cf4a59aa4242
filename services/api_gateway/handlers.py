"""What each route does. Checks are made here; what is true is decided by Kafka, the resolver and the projection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from http import HTTPStatus
from uuid import UUID

from aiohttp import hdrs, web
from pydantic import TypeAdapter

from libs.bus.tracing import child_of
from libs.contracts.events import PersonKind
from libs.contracts.http import (
    MAX_SEGMENTS,
    PERSON_PATHS,
    ApiModel,
    InboundQuery,
    PersonId,
    PersonIn,
    SendSms,
    SmsQuery,
)
from libs.sms_text.segments import count_segments
from services.api_gateway.accepting import Accepter
from services.api_gateway.calls import Call, parse
from services.api_gateway.problems import bad_field
from services.api_gateway.requests import Repeatable, Request
from services.api_gateway.upstreams import Upstream

IDEMPOTENCY_KEY = "Idempotency-Key"
TRACEPARENT = "traceparent"

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


async def send_sms(services: Services, call: Call) -> web.Response:
    """202 once the message is durable."""
    repeatable_as = _idempotency_key(call)
    body = await call.body()
    sms = parse(SendSms, body)
    _check_length(sms.message)
    validity = services.default_validity if sms.validity_seconds is None else timedelta(seconds=sms.validity_seconds)
    trace = call.request.headers.get(TRACEPARENT)
    traceparent = child_of(trace if trace is not None and _trace_context.fullmatch(trace) else None)
    repeatable = Repeatable(repeatable_as, sha256(body).digest()) if repeatable_as is not None else None
    answer = await services.accepter.accept(Request(call.caller, sms, validity, traceparent, repeatable))
    return web.Response(
        status=HTTPStatus.ACCEPTED,
        body=answer.model_dump_json(by_alias=True).encode(),
        headers={hdrs.CONTENT_TYPE: "application/json", hdrs.LOCATION: answer.location},
    )


async def get_sms(services: Services, call: Call) -> web.StreamResponse:
    return await services.projection.forward(call, "sms", str(call.parameter("id", _message_id)))


async def list_sms(services: Services, call: Call) -> web.StreamResponse:
    return await services.projection.forward(call, "sms", query=_filters(call, SmsQuery))


async def list_inbound(services: Services, call: Call) -> web.StreamResponse:
    return await services.inbound.forward(call, "inbound", query=_filters(call, InboundQuery))


async def get_inbound(services: Services, call: Call) -> web.StreamResponse:
    return await services.inbound.forward(call, "inbound", str(call.parameter("id", _message_id)))


async def put_person(services: Services, call: Call, *, kind: PersonKind) -> web.StreamResponse:
    person_id = call.parameter("id", _person_id)
    person = parse(PersonIn, await call.body())
    body = person.model_dump_json(by_alias=True).encode()
    return await services.resolver.forward(call, PERSON_PATHS[kind], person_id, body=body)


async def get_person(services: Services, call: Call, *, kind: PersonKind) -> web.StreamResponse:
    return await services.resolver.forward(call, PERSON_PATHS[kind], call.parameter("id", _person_id))


async def delete_person(services: Services, call: Call, *, kind: PersonKind) -> web.StreamResponse:
    return await services.resolver.forward(call, PERSON_PATHS[kind], call.parameter("id", _person_id))


async def get_openapi(services: Services, _: Call) -> web.Response:
    return web.Response(body=services.openapi, content_type="application/json")


async def get_asyncapi(services: Services, _: Call) -> web.Response:
    return web.Response(body=services.asyncapi, content_type="application/json")


def _filters(call: Call, model: type[ApiModel]) -> dict[str, str]:
    """The query as it was given, checked."""
    query = call.query(model).model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    return {name: str(value) for name, value in query.items()}


def _idempotency_key(call: Call) -> str | None:
    """The key within the tenant and API key of the caller."""
    given = call.request.headers.getall(IDEMPOTENCY_KEY, ())
    if not given:
        return None
    if len(given) > 1:
        raise bad_field(IDEMPOTENCY_KEY, "is given more than once")
    if not _printable_ascii.fullmatch(given[0]):
        raise bad_field(IDEMPOTENCY_KEY, "must be 1 to 255 printable ASCII characters")
    return f"{call.caller.tenant}/{call.caller.name}/{given[0]}"


def _check_length(text: str) -> None:
    segments = count_segments(text)
    if segments > MAX_SEGMENTS:
        raise bad_field("message", f"needs {segments} segments; at most {MAX_SEGMENTS} are allowed")
