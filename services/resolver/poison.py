"""How a leg ends whose request or return went to the dead letters."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from libs.bus.poison import Ending, Named
from libs.contracts.events import Reason
from libs.contracts.statuses import Status
from libs.storage.database import Pool
from services.resolver.deciding import Ended
from services.resolver.decisions import Coordinates, settle


async def end_leg(named: Named, reason: Reason, pool: Pool, now: Callable[[], datetime]) -> Ending | None:
    """Store the end as a decision like any other. If the leg was decided before, that counts: it may be another end, or none."""
    leg = named.data.leg
    at = Coordinates(leg.leg_at, named.subject, leg.cycle, leg.leg)
    counts = (await settle(pool, {at: Ended(now(), Status.REJECTED, reason)}))[at]
    return Ending(*counts) if isinstance(counts, Ended) else None
