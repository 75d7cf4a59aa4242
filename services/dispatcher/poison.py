"""How a leg ends whose dispatch went to the dead letters."""

from __future__ import annotations

from libs.bus.poison import Ending, Named
from libs.contracts.events import Reason
from libs.contracts.statuses import Status
from services.dispatcher.attempts import LegKey
from services.dispatcher.ledger import Ledger


async def end_leg(named: Named, reason: Reason, ledger: Ledger) -> Ending | None:
    """Store the end in place of the leg's first try. None if anything else is stored of the leg."""
    leg = named.data.leg
    at = await ledger.reject(leg.leg_at, LegKey(named.subject, leg.cycle, leg.leg), reason)
    return None if at is None else Ending(at, Status.REJECTED, reason)
