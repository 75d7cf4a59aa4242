"""What each route does. Checks are made here; what is true is decided by Kafka, the resolver and the projection."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from uuid import UUID

from pydantic import TypeAdapter

from libs.bus.tracing import child_of
from libs.contracts.events import PersonKind
from libs.contracts.http.model import ApiModel
from libs.contracts.http.requests import PERSON_PATHS, InboundQuery, PersonId, PersonIn, SayOutcome, SendSms, SmsQuery
from libs.service_kit.problems import ProblemError, bad_field
from services.api_gateway.accepting import Accepter
from services.api_gateway.api_keys import Caller
from services.api_gateway.bulk.accepting import BulkAccepter, BulkRequest
from services.api_gateway.checks import check_length, check_schedule
from services.api_gateway.commands import Commands
from services.api_gateway.http.calls import Call, parse
from services.api_gateway.http.responses import Response
from services.api_gateway.plain_sms import PlainSms, parse_sms
from services.api_gateway.requests import Named, Repeatable, Request, accepted, validity_of
from services.api_gateway.shown import Shown, read_shown
from services.api_gateway.upstreams import Upstream

IDEMPOTENCY_KEY = "Idempotency-Key"
TRACEPARENT = b"traceparent"
_IDEMPOTENCY_KEY = IDEMPOTENCY_KEY.lower().encode()

_person_id: TypeAdapter[str] = TypeAdapter(PersonId)
_message_id = TypeAdapter(UUID)
_printable_ascii = re.compile(r"[\x20-\x7e]{1,255}")
_trace_context = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, level 1, §3.2.2: what is all zeros is no id."""


@dataclass(frozen=True, slots=True)
class Services:
    """What handlers work with."""

    accepter: Accepter
    bulk: BulkAccepter
    commands: Commands
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
    check_length(sms.message)
    scheduled_at, refused = _schedule(sms)
    validity = validity_of(sms.validity_seconds, services.default_validity)
    repeatable = Repeatable(repeatable_as, sha256(body).digest()) if repeatable_as is not None else None
    request = Request(call.caller, sms, validity, _traceparent(call), repeatable, scheduled_at, refused)
    services.accepter.accept(request, partial(_answer_accepted, call))


def _answer_accepted(call: Call, result: Named | Exception) -> None:
    call.answer(accepted(result) if isinstance(result, Named) else result)


def _schedule(sms: SendSms | PlainSms) -> tuple[datetime | None, ProblemError | None]:
    if sms.scheduled_at is None:
        return None, None
    try:
        return check_schedule(sms.scheduled_at, datetime.now(UTC)), None
    except ProblemError as problem:
        return None, problem


async def send_bulk(services: Services, call: Call) -> Response | None:
    """202 once the first messages are durable; the answer goes on as the others are."""
    stream = call if call.chunked else None
    request = BulkRequest(call.caller, call.body, _traceparent(call), _idempotency_key(call), stream)
    return await services.bulk.accept(request)


async def cancel_sms(services: Services, call: Call) -> Response:
    return await _command(services, call, services.commands.cancel)


async def resend_sms(services: Services, call: Call) -> Response:
    return await _command(services, call, services.commands.resend)


async def say_outcome(services: Services, call: Call) -> Response:
    outcome = parse(SayOutcome, call.body).status
    return await _command(services, call, partial(services.commands.say_outcome, outcome=outcome))


async def _command(
    services: Services, call: Call, command: Callable[[Caller, Shown, str], Awaitable[Response]]
) -> Response:
    """The command's answer about the message as the outbox shows it, or the outbox's own answer if it shows none."""
    found = await services.projection.forward(call, "sms", str(call.parameter("id", _message_id)), method="GET")
    if found.status != HTTPStatus.OK:
        return found
    return await command(call.caller, read_shown(found.body), _traceparent(call))


async def get_batch(services: Services, call: Call) -> Response:
    return await services.projection.forward(call, "batches", str(call.parameter("id", _message_id)))


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


async def get_or_delete_person(services: Services, call: Call, *, kind: PersonKind) -> Response:
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


def _traceparent(call: Call) -> str:
    trace = call.header(TRACEPARENT)
    return child_of(trace if trace is not None and _trace_context.fullmatch(trace) else None)
