"""A batch of deferrals and commands in: stored; what was cancelled is published; then (by the consumer) committed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from libs.bus.batch import Batch
from libs.bus.errors import INVALID, BadRecord
from libs.bus.port import Publisher
from libs.contracts import topics
from libs.contracts.events import CommandKind, MessageEvent, Reason, SmsCommand, SmsDeferred
from libs.contracts.statuses import Status
from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import ENTRIES_ADDED, ENTRIES_SETTLED
from libs.storage.database import Pool
from services.scheduler import store
from services.scheduler.publications import CANCELLED, ending, returning
from services.scheduler.store import Arrival, Deferral, Mark, Outcome


async def handle(
    batch: Batch, pool: Pool, publisher: Publisher, now: Callable[[], datetime], on_arrival: Callable[[datetime], None]
) -> None:
    """Keep what is deferred, and cancel what is marked and waits. `on_arrival` is told when the first of the batch is due.

    Done again it changes nothing more, and publishes the same events.
    """
    crash_point("scheduler.receive-store")
    arrivals = [arrival(record.event) for record in batch.of(topics.DEFERRED_HIGH, topics.DEFERRED)]
    commands: list[MessageEvent[SmsCommand]] = [record.event for record in batch.of(topics.COMMANDS)]
    # Other commands do not concern what waits: it is resolved anew in any case.
    marks = {Mark(c.subject, c.data.cycle) for c in commands if c.data.kind is CommandKind.CANCEL}
    if arrivals:
        await store.add(pool, arrivals)
        on_arrival(min(a.deferral.due_at for a in arrivals))
        ENTRIES_ADDED.inc(len(arrivals))
    if marks:
        await store.mark(pool, marks, now())
    crash_point("scheduler.store-cancel")
    messages = {a.deferral.message_id for a in arrivals} | {m.message_id for m in marks}
    if not messages:
        return
    cancelled = await store.cancel_marked(pool, messages, now())
    crash_point("scheduler.cancel-publish")
    if cancelled:
        await publisher.publish_many([ending(each, at, Status.CANCELLED, CANCELLED) for each, at in cancelled])
        ENTRIES_SETTLED.labels(Outcome.CANCELLED).inc(len(cancelled))
    crash_point("scheduler.publish-commit")


def arrival(event: MessageEvent[SmsDeferred]) -> Arrival:
    """A deferral as it is stored. Raises BadRecord if its leg is not of the time at which it is due."""
    deferred = event.data
    if deferred.leg.leg_at != deferred.due_at:
        raise BadRecord(Reason(INVALID, "data.leg.leg_at: is not due_at"))
    person = deferred.message.recipient
    deferral = Deferral(
        event.subject,
        deferred.leg.cycle,
        deferred.leg.leg,
        deferred.due_at,
        deferred.message.tenant,
        person.kind,
        person.id,
        event.traceparent,
    )
    return Arrival(deferral, deferred.message.priority, returning(event))
