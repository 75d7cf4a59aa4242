"""From a valid request to a durable one: reserve its key if it has one, publish its event, and only then answer (rule 1)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import structlog

from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import MESSAGES_ACCEPTED
from libs.service_kit.problems import ProblemError
from services.api_gateway.gatherer import LEAST_SECONDS, Gatherer, Overloaded, Settle
from services.api_gateway.idempotency import InProgress, Ledger, OtherBody, Publish, Published, Reservation, Verdict
from services.api_gateway.known_keys import KnownKeys, in_progress, other_body
from services.api_gateway.neighbours import Neighbour
from services.api_gateway.numbers import Numbers
from services.api_gateway.problems import unavailable
from services.api_gateway.publishing import DurablePublisher
from services.api_gateway.requests import Named, Repeatable, Request, to_record

log = structlog.get_logger()


class Accepter:
    """Accepts requests. Make it in a running loop; `stop` serves what waits.

    Requests with and without an Idempotency-Key gather apart, so that those without go on while Postgres is away, as long as there are
    numbers.
    """

    def __init__(
        self,
        publisher: DurablePublisher,
        ledger: Ledger,
        numbers: Numbers,
        *,
        timeout_seconds: float,
        postgres: Neighbour,
    ) -> None:
        self._publisher = publisher
        self._ledger = ledger
        self._numbers = numbers
        self._postgres = postgres
        self._keys = KnownKeys(ledger)
        self._plain = Gatherer(self._flush_plain, timeout_seconds=timeout_seconds)
        self._keyed = Gatherer(self._flush_keyed, timeout_seconds=timeout_seconds)

    def accept(self, request: Request, settle: Settle[Named]) -> None:
        """Settles the request once Kafka has the event. Raises, or settles with, the problems 409 and 422 (key in use) and 503, and what
        the request is `refused` for, unless it repeats an accepted one."""
        repeatable = request.repeatable
        if repeatable is None and request.refused is not None:
            raise request.refused
        if repeatable is not None and (known := self._keys.enter(repeatable)) is not None:
            settle(known)
            return
        try:
            (self._plain if repeatable is None else self._keyed).ask(request, settle)
        except Overloaded:
            if repeatable is not None:
                self._keys.leave(repeatable)
            raise unavailable("too many requests wait already; this one was not accepted", retry_after=1) from None

    async def stop(self) -> None:
        await asyncio.gather(self._plain.stop(), self._keyed.stop())
        await self._keys.stop()

    async def _flush_plain(self, requests: Sequence[Request], deadline: float) -> list[Named | Exception]:
        numbers = await self._numbers.take(len(requests))
        new = [to_record(request, number) for request, number in zip(requests, numbers, strict=True)]
        await self._publisher.publish_many([record for _, record in new], deadline)
        _count(requests)
        return [Named(message_id, number) for (message_id, _), number in zip(new, numbers, strict=True)]

    async def _flush_keyed(self, requests: Sequence[Request], deadline: float) -> list[Named | Exception]:
        try:
            refused = await self._refused(requests)
            if not refused:
                return await self._flush_reserved(requests, deadline)
            rest = iter(await self._flush_reserved([r for n, r in enumerate(requests) if n not in refused], deadline))
            return [refused[n] if n in refused else next(rest) for n in range(len(requests))]
        finally:
            for request in requests:
                self._keys.leave(_repeatable(request))

    async def _refused(self, requests: Sequence[Request]) -> dict[int, ProblemError]:
        """What requests are refused for, by their positions; one that repeats an accepted request is not refused."""
        found = {n: (_repeatable(r).key, r.refused) for n, r in enumerate(requests) if r.refused is not None}
        if not found:
            return {}
        with self._postgres.needed("the Idempotency-Key could not be looked up: send it again"):
            known = await self._ledger.known([key for key, _ in found.values()])
        return {n: problem for n, (key, problem) in found.items() if key not in known}

    async def _flush_reserved(self, requests: Sequence[Request], deadline: float) -> list[Named | Exception]:
        verdicts = await self._reserve(requests)
        crash_point("api_gateway.reserve-publish")
        claimed = [(r, v) for r, v in zip(requests, verdicts, strict=True) if isinstance(v, Publish)]
        failure = await self._publish_claimed(claimed, deadline)
        if claimed and failure is None:
            crash_point("api_gateway.publish-mark")
            _count([request for request, _ in claimed])
            self._keys.published({_repeatable(r): Named(v.message_id, v.number) for r, v in claimed})
        return [_answer(verdict, failure) for verdict in verdicts]

    async def _reserve(self, requests: Sequence[Request]) -> list[Verdict]:
        numbers = await self._numbers.take(len(requests))
        reservations = list[Reservation]()
        for request, number in zip(requests, numbers, strict=True):
            message_id, record = to_record(request, number)
            repeatable = _repeatable(request)
            reservations.append(Reservation(repeatable.key, repeatable.body_hash, message_id, number, record))
        with self._postgres.needed("the Idempotency-Key could not be stored: send it again"):
            return await self._ledger.reserve(reservations)

    async def _publish_claimed(
        self, claimed: Sequence[tuple[Request, Publish]], deadline: float
    ) -> ProblemError | None:
        """Publish, and give the claims back if that fails: then a retry need not wait for them to run out."""
        if not claimed:
            return None
        try:
            # However long the reservation took, Kafka is given some time.
            deadline = max(deadline, asyncio.get_running_loop().time() + LEAST_SECONDS)
            await self._publisher.publish_many([verdict.record for _, verdict in claimed], deadline)
        except ProblemError as failure:
            try:
                await self._ledger.release([_repeatable(request).key for request, _ in claimed])
            except Exception as error:
                log.warning("claims not given back", keys=len(claimed), reason=type(error).__name__)
            return failure
        return None


def _repeatable(request: Request) -> Repeatable:
    assert request.repeatable is not None
    return request.repeatable


def _answer(verdict: Verdict, failure: ProblemError | None) -> Named | Exception:
    match verdict:
        case Publish():
            return failure or Named(verdict.message_id, verdict.number)
        case Published():
            return Named(verdict.message_id, verdict.number)
        case OtherBody():
            return other_body()
        case InProgress():
            return in_progress(verdict.seconds_left)


def _count(requests: Sequence[Request]) -> None:
    for priority, messages in Counter(request.sms.priority for request in requests).items():
        MESSAGES_ACCEPTED.labels(priority).inc(messages)
