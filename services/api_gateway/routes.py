"""Every route of the API, once: what serves it, what it takes and answers, who may call it. OpenAPI is made from this table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from urllib.parse import unquote

from libs.contracts.events import PersonKind
from libs.contracts.http.answers import (
    Accepted,
    Batch,
    Bulk,
    Cancelling,
    Inbound,
    InboundPage,
    OutcomeSaid,
    Person,
    SmsPage,
    SmsWithHistory,
)
from libs.contracts.http.model import ApiModel
from libs.contracts.http.requests import PERSON_PATHS, InboundQuery, PersonIn, SayOutcome, SendBulk, SendSms, SmsQuery
from libs.service_kit.config_file import Scope
from libs.service_kit.problems import ProblemError
from services.api_gateway import handlers
from services.api_gateway.bulk.accepting import MAX_BULK_BYTES
from services.api_gateway.handlers import IDEMPOTENCY_KEY, Services
from services.api_gateway.http.calls import MAX_BODY_BYTES, NOT_UTF8, Call
from services.api_gateway.http.responses import Response

Handler = Callable[[Services, Call], Awaitable[Response | None] | None]
"""Gives the answer, or None if it sees to it itself that the call is answered: if at once, it costs no task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation. `scope` None: open to all. `problems` are the errors beyond those that any route may answer.

    `alongside`: its calls keep their order by themselves, so that pipelined ones need not wait for each other.
    """

    method: str
    path: str
    handler: Handler
    name: str
    summary: str
    answers: Mapping[int, type[ApiModel] | None]
    scope: Scope | None
    body: type[ApiModel] | None = None
    query: type[ApiModel] | None = None
    headers: Mapping[str, str] | None = None
    problems: tuple[int, ...] = ()
    most_bytes: int = MAX_BODY_BYTES
    alongside: bool = False


def _person_routes(kind: PersonKind) -> tuple[Route, ...]:
    path = f"/{PERSON_PATHS[kind]}/{{id}}"
    title = "Client" if kind is PersonKind.CLIENT else "Staff"
    return (
        Route(
            method="PUT",
            path=path,
            handler=partial(handlers.put_person, kind=kind),
            name=f"put{title}",
            summary="Say all that is known of this person. A message sent after the answer goes to the new number.",
            body=PersonIn,
            answers={200: Person, 201: Person},
            scope=Scope.CONTACTS,
            problems=(415,),
        ),
        Route(
            method="GET",
            path=path,
            handler=partial(handlers.get_or_delete_person, kind=kind),
            name=f"get{title}",
            summary="What is known of this person.",
            answers={200: Person},
            scope=Scope.CONTACTS_READ,
            problems=(404,),
        ),
        Route(
            method="DELETE",
            path=path,
            handler=partial(handlers.get_or_delete_person, kind=kind),
            name=f"delete{title}",
            summary="Forget this person: messages to them are rejected from now on.",
            answers={204: None},
            scope=Scope.CONTACTS,
            problems=(404,),
        ),
    )


_REPEATABLE = {
    IDEMPOTENCY_KEY: "1 to 255 printable ASCII characters. A repeat within 24 hours with the same body gets the same "
    "answer and sends nothing anew."
}

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/sms",
        handler=handlers.send_sms,
        name="sendSms",
        summary="Send an SMS to a person. 202: it is durable, and what becomes of it is at `location`.",
        body=SendSms,
        answers={202: Accepted},
        scope=Scope.SEND,
        headers=_REPEATABLE,
        problems=(409, 415, 422),
        alongside=True,
    ),
    Route(
        method="GET",
        path="/sms",
        handler=handlers.list_sms,
        name="listSms",
        summary="Messages, newest first, a page at a time.",
        query=SmsQuery,
        answers={200: SmsPage},
        scope=Scope.READ,
    ),
    Route(
        method="GET",
        path="/sms/{id}",
        handler=handlers.get_sms,
        name="getSms",
        summary="A message with its history.",
        answers={200: SmsWithHistory},
        scope=Scope.READ,
        problems=(404,),
    ),
    Route(
        method="POST",
        path="/sms/bulk",
        handler=handlers.send_bulk,
        name="sendBulk",
        summary="Send up to 10,000 SMS, each taken or refused by itself. 202: those taken are durable. 400 if none was to be taken.",
        body=SendBulk,
        answers={202: Bulk},
        scope=Scope.SEND,
        headers=_REPEATABLE,
        problems=(409, 415, 422),
        most_bytes=MAX_BULK_BYTES,
    ),
    Route(
        method="GET",
        path="/batches/{id}",
        handler=handlers.get_batch,
        name="getBatch",
        summary="A batch's accepted messages, counted by status.",
        answers={200: Batch},
        scope=Scope.READ,
        problems=(404,),
    ),
    Route(
        method="DELETE",
        path="/sms/{id}",
        handler=handlers.cancel_sms,
        name="cancelSms",
        summary="Ask that a message be not sent. 202 also if it comes too late: what became of it is at `location`.",
        answers={202: Cancelling},
        scope=Scope.CANCEL,
        problems=(404,),
    ),
    Route(
        method="POST",
        path="/sms/{id}/resend",
        handler=handlers.resend_sms,
        name="resendSms",
        summary="Send a message again that ended without being delivered. 409 for any other, or if it was sent again too often.",
        answers={202: Accepted},
        scope=Scope.SEND,
        problems=(404, 409),
    ),
    Route(
        method="POST",
        path="/sms/{id}/outcome",
        handler=handlers.say_outcome,
        name="sayOutcome",
        summary="Say what became of a message that is in doubt or was never reported. 409 for any other.",
        body=SayOutcome,
        answers={202: OutcomeSaid},
        scope=Scope.OUTCOME,
        problems=(404, 409, 415),
    ),
    Route(
        method="GET",
        path="/inbound",
        handler=handlers.list_inbound,
        name="listInbound",
        summary="What handsets sent, newest first, a page at a time; parts of one message are joined.",
        query=InboundQuery,
        answers={200: InboundPage},
        scope=Scope.INBOUND_READ,
    ),
    Route(
        method="GET",
        path="/inbound/{id}",
        handler=handlers.get_inbound,
        name="getInbound",
        summary="A message from a handset, with its parts as they came.",
        answers={200: Inbound},
        scope=Scope.INBOUND_READ,
        problems=(404,),
    ),
    *_person_routes(PersonKind.CLIENT),
    *_person_routes(PersonKind.STAFF),
    Route(
        method="GET",
        path="/openapi.json",
        handler=handlers.get_openapi,
        name="openapi",
        summary="This API, as OpenAPI 3.1.",
        answers={200: None},
        scope=None,
    ),
    Route(
        method="GET",
        path="/asyncapi.json",
        handler=handlers.get_asyncapi,
        name="asyncapi",
        summary="The topics and their events, as AsyncAPI 3.0.",
        answers={200: None},
        scope=None,
    ),
)


class Router:
    """Finds the route of a request. A path's parameters are whole segments: `/clients/{id}`."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        self._templates: dict[tuple[str | None, ...], dict[str, Route]] = {}
        for route in routes:
            if "{" not in route.path:
                methods = self._exact.setdefault(route.path, {})
            else:
                steps = tuple(None if step.startswith("{") else step for step in route.path.split("/"))
                methods = self._templates.setdefault(steps, {})
            methods[route.method] = route

    def find(self, method: str, raw_path: str) -> tuple[Route, Mapping[str, str]]:
        """The route and the path's parameters, decoded. Raises the problems 404 and 405."""
        methods, values = self._exact.get(raw_path), ()
        if methods is None:
            methods, values = self._find_template(raw_path)
        route = methods.get(method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            raise ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, f"this path takes {allowed}", headers={"Allow": allowed})
        if not values:
            return route, {}
        names = (step[1:-1] for step in route.path.split("/") if step.startswith("{"))
        return route, dict(zip(names, values, strict=True))

    def _find_template(self, raw_path: str) -> tuple[dict[str, Route], tuple[str, ...]]:
        steps = raw_path.split("/")
        for template, methods in self._templates.items():
            if len(template) == len(steps) and all(_fits(*pair) for pair in zip(template, steps, strict=True)):
                values = (s for t, s in zip(template, steps, strict=True) if t is None)
                return methods, tuple(unquote(value, errors=NOT_UTF8) for value in values)
        raise ProblemError(HTTPStatus.NOT_FOUND, "there is nothing at this path")


def _fits(expected: str | None, step: str) -> bool:
    return step != "" if expected is None else step == expected
