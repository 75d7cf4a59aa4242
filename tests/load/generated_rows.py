"""Rows of the outbox made by SQL from those of one message, as many as it takes to make it large.

Whatever columns the tables have, the copies differ in `message_id` and `person` alone.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from libs.storage.partitions import make_ahead
from services.projection.store import PARTITIONED
from tests.load.workload import CLIENTS

BATCH = 200_000
SPREAD = timedelta(days=30)
"""Over which the messages seem to have been accepted."""
_TABLES = ("messages", "personal")
_COPY = """
INSERT INTO outbox.{table} ({columns})
SELECT {values} FROM outbox.{table} AS t CROSS JOIN generate_series($2::bigint, $3::bigint) AS n
 WHERE t.message_id = $1
"""
_ID = """
(lpad(to_hex($4::bigint + n * $5::bigint / 1000), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid
"""

_OWN = {"message_id": _ID, "person": f"lpad((n % {CLIENTS})::text, 4, '0')"}


async def copy_message(database: asyncpg.Connection, message_id: UUID, copies: int, until: datetime) -> None:
    """Copies of a message and of what is known of its person, older ones first, the newest just before `until`."""
    began = until - SPREAD
    async with database.transaction():
        await database.execute("SET LOCAL search_path TO outbox")
        for table in PARTITIONED:
            for day in range(0, SPREAD.days + 1, table.days):
                await make_ahead(database, (table,), began + timedelta(days=day))
    step_us = SPREAD // timedelta(microseconds=1) // copies
    for table in _TABLES:
        names = await database.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'outbox' AND table_name = $1",
            table,
        )
        columns = [row["column_name"] for row in names]
        values = [_OWN.get(column, f't."{column}"') for column in columns]
        copy = _COPY.format(table=table, columns=", ".join(f'"{c}"' for c in columns), values=", ".join(values))
        for first in range(0, copies, BATCH):
            last = min(first + BATCH, copies) - 1
            await database.execute(copy, message_id, first, last, int(began.timestamp() * 1000), step_us)
        await database.execute(f"VACUUM ANALYZE outbox.{table}")
