"""Commands about messages on their way: a mark per message and cycle, read by the claim under its lock."""

from __future__ import annotations

from datetime import datetime

from libs.bus.batch import Batch
from libs.contracts.events import MessageEvent, SmsCommand
from libs.storage.database import Pool
from libs.storage.retention import delete_old


async def mark(batch: Batch, pool: Pool) -> None:
    """A handler of `sms.commands`: every gateway's dispatchers leave the same marks, also for messages they never see."""
    commands: list[MessageEvent[SmsCommand]] = [record.event for record in batch]
    await pool.execute(
        _MARK,
        [c.subject for c in commands],
        [c.data.cycle for c in commands],
        [str(c.data.kind) for c in commands],
        [c.data.asked_at for c in commands],
    )


async def forget(pool: Pool, before: datetime) -> None:
    """Delete the marks that were asked for before a moment."""
    await delete_old(pool, "marks", "asked_at", before)


_MARK = """
    INSERT INTO marks (message_id, cycle, kind, asked_at)
    SELECT message_id, cycle, kind, max(asked_at)
      FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::timestamptz[]) AS asked (message_id, cycle, kind, asked_at)
     GROUP BY message_id, cycle, kind ORDER BY message_id, cycle, kind
    ON CONFLICT (message_id, cycle, kind) DO UPDATE SET asked_at = EXCLUDED.asked_at
     WHERE marks.asked_at < EXCLUDED.asked_at
"""
