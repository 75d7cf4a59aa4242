"""Cancel, resend, say what became of it: what people ask about a message that is there already, as the outbox shows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from uuid import UUID

from libs.bus.codec import encode, message_key
from libs.bus.port import Outgoing
from libs.contracts.endings import whole_ending
from libs.contracts.events import (
    CommandKind,
    Leg,
    Message,
    MessageEvent,
    Priority,
    Reason,
    SmsCommand,
    SmsRequested,
    event_id,
    person_key,
)
from libs.contracts.http.answers import Cancelling, OutcomeSaid
from libs.contracts.http.requests import Outcome
from libs.contracts.statuses import NEGATIVE_FINALS, Status
from libs.contracts.topics import COMMANDS, STATUS, requested
from libs.service_kit.problems import ProblemError
from services.api_gateway.api_keys import Caller
from services.api_gateway.asked import Ask, AskedTable, What, outcome_key
from services.api_gateway.http.responses import Response
from services.api_gateway.neighbours import Neighbour
from services.api_gateway.problems import unavailable
from services.api_gateway.publishing import DurablePublisher
from services.api_gateway.requests import SOURCE, Named, accepted, validity_of
from services.api_gateway.shown import DOUBTFUL, Shown


class Commands:
    """What is asked is decided once: who asked first, and when, is stored. A repeat publishes that again under the same event id, with
    what the outbox shows of the message by then."""

    def __init__(
        self,
        asked: AskedTable,
        publisher: DurablePublisher,
        postgres: Neighbour,
        *,
        default_validity: timedelta,
        max_resends: int,
    ) -> None:
        self._asked = asked
        self._publisher = publisher
        self._postgres = postgres
        self._default_validity = default_validity
        self._max_resends = max_resends

    async def cancel(self, caller: Caller, shown: Shown, traceparent: str) -> Response:
        """202 once the command is durable; whether it came in time is for the history to say.

        A resend may have been asked for that the outbox does not show yet, or that never reached Kafka: then there is a command for each of
        the two cycles.
        """
        ask = _ask(caller, traceparent)
        cycles = {shown.newest_cycle, max(shown.newest_cycle, await self._newest_resend(shown.id))}
        records = [await self._cancellation(caller.tenant, shown, cycle, ask) for cycle in sorted(cycles)]
        await self._publisher.publish_many(records)
        return _answer(Cancelling(id=shown.id, status="cancelling", location=f"/sms/{shown.id}"))

    async def _cancellation(self, tenant: str, shown: Shown, cycle: int, ask: Ask) -> Outgoing:
        first = await self._first(What.CANCEL, shown.id, cycle, ask)
        recipient = shown.recipient
        event = MessageEvent(
            id=event_id(SmsCommand.TYPE, shown.id, cycle, CommandKind.CANCEL),
            type=SmsCommand.TYPE,
            source=SOURCE,
            time=first.asked_at,
            subject=shown.id,
            data=SmsCommand(
                tenant=tenant,
                recipient=recipient,
                kind=CommandKind.CANCEL,
                cycle=cycle,
                asked_at=first.asked_at,
            ),
            traceparent=first.traceparent,
        )
        return Outgoing(COMMANDS.name, person_key(tenant, recipient), encode(event))

    async def resend(self, caller: Caller, shown: Shown, traceparent: str) -> Response:
        """202 once the new cycle is durable. Raises the problem 409 for a message that is not to be sent again."""
        cycle = shown.newest_cycle + 1
        text, number, priority = self._check(shown, cycle)
        first = await self._first(What.RESEND, shown.id, cycle, _ask(caller, traceparent))
        recipient = shown.recipient
        validity = validity_of(shown.validity_seconds, self._default_validity)  # as long as the first time
        message = Message(
            tenant=caller.tenant,
            recipient=recipient,
            number=number,
            text=text,
            accepted_at=shown.accepted_at,
            valid_until=first.asked_at + validity,
            priority=priority,
            sender_id=shown.sender_id,
            tags=shown.tags,
            batch_id=shown.batch_id,
        )
        event = MessageEvent(
            id=event_id(SmsRequested.TYPE, shown.id, cycle, 1),
            type=SmsRequested.TYPE,
            source=SOURCE,
            time=first.asked_at,
            subject=shown.id,
            data=SmsRequested(
                message=message,
                leg=Leg(cycle, 1, first.asked_at),
                requested_by=first.asked_by,
                custom_data=shown.custom_data,
            ),
            traceparent=first.traceparent,
        )
        record = Outgoing(requested(priority).name, person_key(caller.tenant, recipient), encode(event))
        await self._publisher.publish_many([record])
        return accepted(Named(shown.id, number))

    async def say_outcome(self, caller: Caller, shown: Shown, traceparent: str, outcome: Outcome) -> Response:
        """202 once the word is durable: it ends the message, not its attempts, which stay as doubtful as they were.

        A cancellation goes before it, lest a late refusal has the ended cycle sent once more. Raises the problem 409 where no doubt is.
        """
        if shown.status not in DOUBTFUL:
            words = "an outcome is said only of what is in doubt or was never reported"
            raise ProblemError(HTTPStatus.CONFLICT, f"it is {shown.status}; {words}")
        ask = _ask(caller, traceparent)
        status = Status(outcome)
        legs = [shown.shown_leg] if status is Status.DELIVERED else shown.doubtful_legs
        words = [await self._word(caller.tenant, shown, leg, status, ask) for leg in legs]
        # One after the other: if only the word were published, a repeat would be a 409, and there would never be a cancellation.
        await self._publisher.publish_many([await self._cancellation(caller.tenant, shown, shown.cycle, ask)])
        await self._publisher.publish_many(words)
        return _answer(OutcomeSaid(id=shown.id, status=outcome, location=f"/sms/{shown.id}"))

    async def _word(self, tenant: str, shown: Shown, leg: Leg, status: Status, ask: Ask) -> Outgoing:
        first = await self._first(outcome_key(leg.leg, status), shown.id, leg.cycle, ask)
        event = whole_ending(
            shown.id,
            tenant,
            shown.recipient,
            leg,
            status,
            Reason("operator", f"said by the API key {first.asked_by}"),
            at=first.asked_at,
            source=SOURCE,
            traceparent=first.traceparent,
        )
        return Outgoing(STATUS.name, message_key(shown.id), encode(event))

    def _check(self, shown: Shown, cycle: int) -> tuple[str, int, Priority]:
        if shown.status not in NEGATIVE_FINALS:
            words = f"it is {shown.status}; only what ended without being delivered can be sent again"
            raise ProblemError(HTTPStatus.CONFLICT, words)
        if cycle - 1 > self._max_resends:
            raise ProblemError(HTTPStatus.CONFLICT, f"it was sent again {cycle - 2} times, which is the most")
        if shown.number is None or shown.priority is None:
            raise unavailable("the outbox does not know the whole message yet: ask again")
        if shown.message is None:
            raise ProblemError(HTTPStatus.CONFLICT, "its text was erased, so there is nothing to send again")
        return shown.message, shown.number, shown.priority

    async def _newest_resend(self, message_id: UUID) -> int:
        with self._postgres.needed("whether it is sent again could not be read: ask again"):
            newest = await self._asked.newest(What.RESEND, message_id)
        return newest or 1

    async def _first(self, what: str, message_id: UUID, cycle: int, ask: Ask) -> Ask:
        with self._postgres.needed("what is asked could not be stored: ask again"):
            return await self._asked.first(what, message_id, cycle, ask)


def _ask(caller: Caller, traceparent: str) -> Ask:
    return Ask(datetime.now(UTC), caller.name, traceparent)


def _answer(body: Cancelling | OutcomeSaid) -> Response:
    content = body.model_dump_json(by_alias=True).encode()
    return Response(HTTPStatus.ACCEPTED, content, headers={"Location": body.location})
