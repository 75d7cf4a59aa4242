"""What a system has written to disk, and what its database holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tests.load.runs import Growth

_TABLES = """
SELECT n.nspname || '.' || coalesce(pg_partition_root(c.oid)::regclass::text, c.relname) AS name,
       pg_total_relation_size(c.oid) AS size
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_t%'
"""


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes so far."""

    wal: int
    tables: Counter[str]
    kafka: int

    def since(self, before: Written) -> Growth:
        grown = {name: size - before.tables[name] for name, size in self.tables.items() if size > before.tables[name]}
        return Growth(wal=self.wal - before.wal, tables=grown, kafka=self.kafka - before.kafka)


async def written(database: asyncpg.Connection, kafka: Path) -> Written:
    tables = Counter[str]()
    for row in await database.fetch(_TABLES):
        schema, _, name = row["name"].partition(".")
        tables[f"{schema}.{name.removeprefix(schema + '.')}"] += row["size"]
    wal = int(await database.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
    return Written(wal, tables, sum(log.stat().st_size for log in kafka.rglob("*.log")))


async def delivered_since(database: asyncpg.Connection, tenants: Sequence[str], oldest: str) -> int:
    """Messages of these tenants, from this id on, that are delivered. The key begins with the tenant: older ones are not looked at."""
    query = """
    SELECT count(*) FROM unnest($1::text[]) AS t(tenant)
     CROSS JOIN LATERAL (
           SELECT FROM outbox.messages m WHERE m.tenant = t.tenant AND m.message_id >= $2 AND m.status = 'delivered' OFFSET 0
     ) AS delivered
    """
    return int(await database.fetchval(query, tenants, oldest))


async def folded(database: asyncpg.Connection, topic: str) -> int:
    """How many events of a topic are in the outbox: much cheaper to ask for than the messages themselves."""
    query = "SELECT coalesce(sum(next_offset), 0) FROM outbox.offsets WHERE topic = $1"
    return int(await database.fetchval(query, topic))
