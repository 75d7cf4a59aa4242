"""How a leg ends whose deferral went to the dead letters."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from libs.bus.poison import Ending, Named
from libs.contracts.events import Reason
from libs.contracts.statuses import Status
from libs.storage.database import Pool
from services.scheduler import store
from services.scheduler.store import Deferral


async def end_leg(named: Named, reason: Reason, pool: Pool, now: Callable[[], datetime]) -> Ending | None:
    """Store the end in place of the deferral. None if that is kept already."""
    leg, message = named.data.leg, named.data.message
    person = message.recipient
    deferral = Deferral(
        named.subject, leg.cycle, leg.leg, leg.leg_at, message.tenant, person.kind, person.id, named.traceparent
    )
    at = await store.reject(pool, deferral, now())
    return None if at is None else Ending(at, Status.REJECTED, reason)
