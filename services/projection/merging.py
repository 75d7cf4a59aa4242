"""Writing what may be there already, in part or whole: after a redelivery, or when another replica was quicker.

It costs twice what `store` does for rows that are new, which they nearly always are.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.projection.journal import NewLine
from services.projection.rows import NewPersonalRow
from services.projection.store import Connection

_BATCH_TABLES = """
CREATE TEMP TABLE IF NOT EXISTS batch_events
    (message_id uuid, event_id uuid, topic text, body bytea) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS batch_personal
    (message_id uuid, cycle integer, leg integer, phone text, person_name text, text text) ON COMMIT DELETE ROWS;
"""
_MERGE_JOURNAL = "INSERT INTO events SELECT * FROM batch_events ORDER BY message_id, event_id ON CONFLICT DO NOTHING"
_MERGE_PERSONAL = """
INSERT INTO personal SELECT * FROM batch_personal ORDER BY message_id, cycle, leg ON CONFLICT DO NOTHING
"""


async def prepare(connection: Connection) -> None:
    """Make this connection's temporary tables, if they are not there yet."""
    await connection.execute(_BATCH_TABLES)


async def merge_journal(connection: Connection, lines: Sequence[NewLine]) -> None:
    """Add the lines that the journal does not have yet."""
    await connection.copy_records_to_table("batch_events", records=lines)
    await connection.execute(_MERGE_JOURNAL)


async def merge_personal(connection: Connection, rows: Sequence[NewPersonalRow]) -> None:
    """Add what is not known yet; what was stored first stays."""
    await connection.copy_records_to_table("batch_personal", records=rows)
    await connection.execute(_MERGE_PERSONAL)
