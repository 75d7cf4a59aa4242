"""Everything is read again from the beginning: nothing is sent, and the outbox stays as it was."""

from collections import Counter

import asyncpg

from deploy.local.stack import Stack
from tests.end_to_end.client import Api, Carrier
from tests.kafka_groups import Groups, groups_of
from tests.waiting import until

CLIENTS = {f"replay-{n}": f"+2547222{n:05}" for n in range(20)}
CONSUMERS = {"resolver", "resolver.high", "resolver.contacts", "receipts", "projection", "dispatcher.demo"}


async def test_reading_everything_again_sends_nothing_and_changes_nothing(
    stack: Stack, api: Api, carrier: Carrier
) -> None:
    await api.put_clients(CLIENTS)
    messages = [
        {
            "clientId": f"replay-{n % 21}",  # the last is unknown
            "message": f"{n} " + "Ваш платёж получен " * (n % 12 + 1),
            "priority": "high" if n % 5 == 0 else "normal",
            "tags": ["replay"],
        }
        for n in range(200)
    ]
    await api.send_all(messages)
    await api.ended("replay", len(messages))
    async with groups_of(stack.kafka) as groups:
        assert set(await groups.names()) >= CONSUMERS
        await _lag_zero(groups)
        await stack.stop()
        sent, outbox = carrier.last(), await _outbox(stack.postgres_dsn)
        assert min(len(rows) for rows in outbox.values()) >= len(messages)
        for group in await groups.names():
            await groups.rewind(group)
        assert sum((await groups.lag()).values()) > 4 * len(messages)
        await _forget_offsets(stack.postgres_dsn)
        await stack.start()
        await _lag_zero(groups)
    assert carrier.last() == sent, "something was sent again"
    after = await _outbox(stack.postgres_dsn)
    for table in outbox:
        assert after[table] == outbox[table], f"{table} changed"
    await api.send(clientId="replay-0", message="And the next one goes out", tags=["after-replay"])
    [sms] = (await api.ended("after-replay", 1)).values()
    assert sms["status"] == "delivered"


async def _lag_zero(groups: Groups) -> None:
    async def nothing_left() -> bool:
        return not await groups.lag()

    await until(nothing_left, "lag 0", within=60)


async def _outbox(dsn: str) -> dict[str, Counter[tuple[object, ...]]]:
    """All rows, less how often each was written."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "outbox"})
    try:
        columns = "tenant, message_id, kind, person, status, gateway, tags::text, fold"
        return {
            "messages": Counter(map(tuple, await connection.fetch(f"SELECT {columns} FROM messages"))),
            "personal": Counter(map(tuple, await connection.fetch("SELECT * FROM personal"))),
            "events": Counter(map(tuple, await connection.fetch("SELECT * FROM events"))),
        }
    finally:
        await connection.close()


async def _forget_offsets(dsn: str) -> None:
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "outbox"})
    try:
        await connection.execute("DELETE FROM offsets")
    finally:
        await connection.close()
