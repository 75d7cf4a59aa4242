"""What the resolver does with the messages that come in: decide, store, publish, in that order and a batch at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from libs.bus.batch import Batch
from libs.bus.port import Publisher
from libs.contracts.statuses import Status
from libs.service_kit.config_file import Gateway
from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import DECISIONS
from libs.storage.database import Pool
from libs.storage.uuids import quick_uuid
from services.resolver import contacts
from services.resolver.contacts import Person
from services.resolver.deciding import CANCELLED, Decision, Deferred, Dispatch, Ended, decide, is_early
from services.resolver.decisions import Coordinates, settle
from services.resolver.marks import marked
from services.resolver.publications import Cause, publication


async def resolve(
    batch: Batch, pool: Pool, publisher: Publisher, gateway: Gateway, now: Callable[[], datetime]
) -> None:
    """Decide every message of the batch; when this returns, the decisions are stored and published, and the batch may be committed.

    Done again it publishes the same events: what was decided before stays decided, whatever has become of the person since.
    """
    crash_point("resolver.receive-decide")
    causes = _by_coordinates(record.event for record in batch)
    made = await _decide(causes, pool, gateway, now)
    settled = await settle(pool, made)
    crash_point("resolver.decide-publish")
    pairs = zip(causes.values(), settled.values(), strict=True)
    await publisher.publish_many([publication(cause, decision) for cause, decision in pairs])
    _count(settled.values())
    crash_point("resolver.publish-commit")


def _by_coordinates(causes: Iterable[Cause]) -> dict[Coordinates, Cause]:
    """Each leg once, in the order in which it first came."""
    found: dict[Coordinates, Cause] = {}
    for cause in causes:
        leg = cause.data.leg
        found.setdefault(Coordinates(leg.leg_at, quick_uuid(cause.subject.int), leg.cycle, leg.leg), cause)
    return found


async def _decide(
    causes: Mapping[Coordinates, Cause], pool: Pool, gateway: Gateway, now: Callable[[], datetime]
) -> dict[Coordinates, Decision]:
    asked = [(at, cause.data.message, _person(cause)) for at, cause in causes.items()]
    cancelled = await marked(pool, [at.message_id for at in causes])
    known = await contacts.find(pool, {person for _, _, person in asked})
    moment = now()
    made: dict[Coordinates, Decision] = {}
    for at, message, person in asked:
        if cancelled and (at.message_id, at.cycle) in cancelled:
            made[at] = Ended(moment, Status.CANCELLED, CANCELLED)
        elif is_early(message, at.leg, moment):
            made[at] = Deferred(moment)
        else:
            made[at] = decide(message, known.get(person), moment, gateway)
    return made


def _person(cause: Cause) -> Person:
    message = cause.data.message
    return Person(message.tenant, message.recipient.kind, message.recipient.id)


_OUTCOMES: dict[type, str] = {Dispatch: "dispatched", Deferred: "scheduled"}


def _count(decisions: Iterable[Decision]) -> None:
    outcomes = Counter(d.reason.code if isinstance(d, Ended) else _OUTCOMES[type(d)] for d in decisions)
    for outcome, number in outcomes.items():
        DECISIONS.labels(outcome).inc(number)
