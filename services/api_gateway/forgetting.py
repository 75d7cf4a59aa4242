"""What is deleted by its age: keys after a day, what was first asked about a message after a week."""

from __future__ import annotations

from datetime import datetime

from libs.storage.database import Pool
from libs.storage.retention import delete_old
from services.api_gateway import asked, idempotency

_KEPT = (("idempotency_keys", "reserved_at", idempotency.KEEP), ("asked", "asked_at", asked.KEEP))


async def forget_old(pool: Pool) -> None:
    """Delete what is older than it is kept, by PostgreSQL's clock: by that `Ledger.known` leaves out what is about to go."""
    for table, column, keep in _KEPT:
        before: datetime = await pool.fetchval("SELECT now() - $1::interval", keep)
        await delete_old(pool, table, column, before)
