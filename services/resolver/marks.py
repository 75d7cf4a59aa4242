"""Cancellations: a mark per message and cycle, which binds whatever is decided next about it here.

A mark that comes just after a decision was made is not looked back for: the same command marks it where the message goes next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from libs.bus.batch import Batch
from libs.contracts.events import CommandKind, MessageEvent, SmsCommand
from libs.storage.array_literals import array_literal
from libs.storage.database import Pool
from libs.storage.retention import delete_old


async def mark(batch: Batch, pool: Pool, now: Callable[[], datetime]) -> None:
    """A handler of `sms.commands`."""
    commands: list[MessageEvent[SmsCommand]] = [record.event for record in batch]
    marks = sorted({(c.subject, c.data.cycle) for c in commands if c.data.kind is CommandKind.CANCEL})
    if marks:
        await pool.execute(_MARK, *zip(*marks, strict=True), now())


async def marked(pool: Pool, messages: Sequence[UUID]) -> set[tuple[UUID, int]]:
    """Which cycles of these messages are to be cancelled."""
    return {(row[0], row[1]) for row in await pool.fetch(_MARKED, array_literal(messages))}


async def forget(pool: Pool, before: datetime) -> None:
    """Delete the marks that came before a moment."""
    await delete_old(pool, "marks", "marked_at", before)


_MARK = """
    INSERT INTO marks SELECT message_id, cycle, $3 FROM unnest($1::uuid[], $2::integer[]) AS m (message_id, cycle)
    ON CONFLICT DO NOTHING
"""

# One index probe per message. With `= ANY` of a cast array the planner may scan the table while it is small, and the array would be parsed
# anew for each of its rows.
_MARKED = """
    SELECT m.message_id, m.cycle FROM unnest($1::text::uuid[]) AS k (message_id)
    CROSS JOIN LATERAL (SELECT message_id, cycle FROM marks WHERE marks.message_id = k.message_id OFFSET 0) AS m
"""
