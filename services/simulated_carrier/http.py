"""Steering, acting on and reading the carrier over HTTP. A bad request is answered with 400 and
`{"errors": [{"field": …, "problem": …}]}`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Final, TypeVar

import msgspec
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.smpp.status import CommandStatus
from services.simulated_carrier.behaviour import Behaviour
from services.simulated_carrier.carrier import Carrier
from services.simulated_carrier.clock import clock_us
from services.simulated_carrier.hand_made import ReceiptOrder, UnknownMessageError, find_message, write_ordered
from services.simulated_carrier.ledger import read_lines
from services.simulated_carrier.mobile_originated import MobileOriginated, write_messages
from services.simulated_carrier.steering import steady_us

CARRIER: Final = web.AppKey("carrier", Carrier)
_LINES_PER_WRITE: Final = 1_000

_Model = TypeVar("_Model", bound=BaseModel)


class DropOrder(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    system_id: str | None = None
    """whose sessions; none given: all connections"""
    reset: bool = False
    """by TCP reset"""


class LedgerQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    after: Annotated[int, Field(ge=0)] = 0
    """the sequence of the last entry that is known already"""
    limit: Annotated[int, Field(ge=1)] | None = None
    """entries at most"""


class SecondsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    minutes: Annotated[int, Field(ge=1, le=60)] = 60
    """how far back"""


def make_application(carrier: Carrier) -> web.Application:
    application = web.Application(middlewares=[_bad_request], client_max_size=1 << 20)
    application[CARRIER] = carrier
    application.add_routes(
        [
            web.get("/behaviour", show_behaviour),
            web.put("/behaviour", set_behaviour),
            web.patch("/behaviour", change_behaviour),
            web.delete("/behaviour", reset_behaviour),
            web.post("/actions/drop-sessions", drop_sessions),
            web.post("/actions/mobile-originated", send_mobile_originated),
            web.post("/actions/receipt", send_receipt),
            web.get("/sessions", show_sessions),
            web.get("/stats", show_statistics),
            web.delete("/stats", reset_statistics),
            web.get("/stats/seconds", show_seconds),
            web.get("/ledger", read_ledger),
            web.delete("/ledger", start_new_ledger),
            web.get("/health/live", say_live),
            web.get("/health/ready", say_ready),
        ]
    )
    return application


async def show_behaviour(request: web.Request) -> web.Response:
    return web.json_response(request.app[CARRIER].steering.shown(steady_us()).model_dump())


async def set_behaviour(request: web.Request) -> web.Response:
    """The body is the whole behaviour; what it leaves out has its default."""
    request.app[CARRIER].steer(await _body(request, Behaviour))
    return await show_behaviour(request)


async def change_behaviour(request: web.Request) -> web.Response:
    """The body has the sections and fields that change; each field is replaced as a whole."""
    changes = await _json_object(request)
    carrier = request.app[CARRIER]
    carrier.steer(carrier.steering.shown(steady_us()).with_fields(changes))
    return await show_behaviour(request)


async def reset_behaviour(request: web.Request) -> web.Response:
    carrier = request.app[CARRIER]
    carrier.steer(carrier.steering.initial)
    return await show_behaviour(request)


async def drop_sessions(request: web.Request) -> web.Response:
    order = await _body(request, DropOrder)
    return web.json_response({"dropped": request.app[CARRIER].drop_sessions(order.system_id, reset=order.reset)})


async def send_mobile_originated(request: web.Request) -> web.Response:
    message = await _body(request, MobileOriginated)
    try:
        parts = write_messages(message)
    except ValueError as error:
        raise _BadRequestError([("text", str(error))]) from None
    request.app[CARRIER].deliver(message.system_id, parts)
    return web.json_response({"parts": len(parts)}, status=202)


async def send_receipt(request: web.Request) -> web.Response:
    order = await _body(request, ReceiptOrder)
    carrier = request.app[CARRIER]
    entry = await asyncio.to_thread(find_message, carrier.ledger.path, order.provider_id)
    try:
        system_id, message = write_ordered(order, entry, clock_us(), carrier.steering.behaviour.receipts)
    except UnknownMessageError:
        problem = "not in the ledger; then system_id, source and destination are needed"
        raise _BadRequestError([("provider_id", problem)], status=404) from None
    carrier.deliver(system_id, [message])
    return web.json_response({"known": entry is not None}, status=202)


async def show_sessions(request: web.Request) -> web.Response:
    carrier = request.app[CARRIER]
    accounts = [account for account in carrier.accounts.values() if carrier.statistics.peak_binds[account.system_id]]
    return web.json_response(
        {
            "connections": len(carrier.sessions),
            "system_ids": {
                account.system_id: {
                    "bound": len(account.sessions),
                    "most_bound_at_once": carrier.statistics.peak_binds[account.system_id],
                    "held_deliveries": account.held,
                    "sessions": [
                        {
                            "number": session.number,
                            "bind_type": session.bind_type.name.lower() if session.bind_type else None,
                            "since": datetime.fromtimestamp(session.bound_at / 1_000_000, UTC).isoformat(),
                            "unanswered_deliveries": session.unanswered,
                        }
                        for session in account.sessions
                    ],
                }
                for account in accounts
            },
        }
    )


async def show_statistics(request: web.Request) -> web.Response:
    carrier = request.app[CARRIER]
    counts = carrier.statistics
    return web.json_response(
        {
            "accepted": counts.accepted,
            "refused": _by_name(counts.refused),
            "unanswered": counts.unanswered,
            "binds_granted": counts.binds_granted,
            "binds_refused": _by_name(counts.binds_refused),
            "receipts_made": counts.receipts_made,
            "deliveries_sent": counts.deliveries_sent,
            "deliveries_acknowledged": counts.deliveries_acknowledged,
            "deliveries_refused": counts.deliveries_refused,
            "deliveries_unanswered": counts.deliveries_unanswered,
            "deliveries_held": sum(account.held for account in carrier.accounts.values()),
            "due_later": carrier.due_later,
            "next_sequence": carrier.ledger.next_sequence,
        }
    )


async def reset_statistics(request: web.Request) -> web.Response:
    """Counts from zero; the most binds at once, from those that there are."""
    carrier = request.app[CARRIER]
    carrier.statistics.reset()
    for account in carrier.accounts.values():
        if account.sessions:
            carrier.statistics.peak_binds[account.system_id] = len(account.sessions)
    return web.Response(status=204)


async def show_seconds(request: web.Request) -> web.Response:
    """Submits by the second in which they came; seconds without any are left out."""
    query = _query(request, SecondsQuery)
    first = clock_us() // 1_000_000 - 60 * query.minutes
    arrivals = request.app[CARRIER].statistics.arrivals
    seconds = [
        {"second": second, "received": counts.received, "accepted": counts.accepted}
        for second, counts in arrivals.items()
        if second >= first
    ]
    return web.json_response({"seconds": seconds})


async def read_ledger(request: web.Request) -> web.StreamResponse:
    query = _query(request, LedgerQuery)
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    lines = islice(read_lines(request.app[CARRIER].ledger.path, query.after), query.limit)
    while block := b"".join(islice(lines, _LINES_PER_WRITE)):
        await response.write(block)
        await asyncio.sleep(0)  # write seldom waits by itself, and SMPP goes on beside it
    await response.write_eof()
    return response


async def start_new_ledger(request: web.Request) -> web.Response:
    """The old one is removed; sequences and provider ids go on."""
    ledger = request.app[CARRIER].ledger
    ledger.start_new()
    return web.json_response({"next_sequence": ledger.next_sequence})


async def say_live(_request: web.Request) -> web.Response:
    return web.json_response({"status": "live"})


async def say_ready(request: web.Request) -> web.Response:
    if request.app[CARRIER].listening:
        return web.json_response({"status": "ready"})
    return web.json_response({"status": "not ready", "missing": ["smpp listener"]}, status=503)


class _BadRequestError(Exception):
    def __init__(self, problems: list[tuple[str, str]], status: int = 400) -> None:
        super().__init__(problems)
        self.problems = problems
        self.status = status


@web.middleware
async def _bad_request(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except _BadRequestError as error:
        problems, status = error.problems, error.status
    except ValidationError as error:
        problems = [(".".join(map(str, detail["loc"])), detail["msg"]) for detail in error.errors()]
        status = 400
    errors = [{"field": field, "problem": problem} for field, problem in problems]
    return web.json_response({"errors": errors}, status=status)


async def _json_object(request: web.Request) -> dict[str, object]:
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=dict[str, object])
    except msgspec.DecodeError as error:
        raise _BadRequestError([("", str(error))]) from None


async def _body(request: web.Request, model: type[_Model]) -> _Model:
    return model.model_validate(await _json_object(request))


def _query(request: web.Request, model: type[_Model]) -> _Model:
    return model.model_validate(dict(request.query))


def _by_name(counts: dict[int, int]) -> dict[str, int]:
    return {CommandStatus(status).name: count for status, count in sorted(counts.items())}
