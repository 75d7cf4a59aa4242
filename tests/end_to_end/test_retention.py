"""What is older than it is kept goes, in every service, from its start on."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from deploy.local.stack import Stack
from libs.contracts.message_ids import first_id
from tests.waiting import until

LONG_AGO = datetime.now(UTC) - timedelta(days=1_000)
ID = UUID(int=first_id(LONG_AGO).int | 7 << 76 | 2 << 62)
ROW: dict[str, object] = {
    **dict.fromkeys(("message_id", "event_id", "owner"), ID),
    **dict.fromkeys(("cycle", "leg", "part", "parts", "try", "try_number", "number", "total", "claim", "reference"), 1),
    **dict.fromkeys(("leg_at", "decided_at", "marked_at", "asked_at", "allowed_at", "received_at", "doubted_at"), LONG_AGO),
    **dict.fromkeys(("reason_code", "reason_words", "tenant", "kind", "person", "gateway", "sender", "source", "topic"), "x"),
    **dict.fromkeys(("destination", "content", "body"), ""),
    **dict.fromkeys(("data_coding", "esm_class"), 0),
    "opens": False,
    "outcome": "A",
    "status": "rejected",
}  # fmt: skip
"""What the columns of all these tables need."""


@pytest.mark.parametrize(
    ("service", "table"),
    [
        ("resolver", "resolver.decisions"),
        ("resolver", "resolver.marks"),
        ("scheduler", "scheduler.marks"),
        ("dispatcher", "dispatch.attempts"),
        ("dispatcher", "dispatch.marks"),
        ("receipts", "receipts.doubts"),
        ("inbound", "inbound.parts"),
        ("projection", "outbox.events"),
    ],
)
async def test_a_service_lets_go_of_what_is_older_than_it_is_kept(stack: Stack, service: str, table: str) -> None:
    process = stack.dispatchers("demo")[0] if service == "dispatcher" else stack.process(service)
    row = json.dumps(ROW, default=str)
    connection = await asyncpg.connect(stack.postgres_dsn)
    try:
        await connection.execute(f"INSERT INTO {table} SELECT (jsonb_populate_record(NULL::{table}, $1)).*", row)
        is_there = f"SELECT EXISTS (SELECT FROM {table} WHERE message_id = $1)"
        assert await connection.fetchval(is_there, ID)
        await process.restart()

        async def gone() -> bool:
            return not await connection.fetchval(is_there, ID)

        await until(gone, "it to be gone")
    finally:
        await connection.close()
        await process.wait_until_ready()
