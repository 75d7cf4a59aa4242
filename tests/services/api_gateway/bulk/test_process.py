"""POST /sms/bulk with processes of the gateway, on a real Kafka and a real Postgres: killed half-way and repeated elsewhere."""

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiokafka import ConsumerRecord

from libs.contracts.events import MessageEvent, SmsRequested
from tests.conftest import DatabaseFactory
from tests.services.api_gateway.process import gateway_process, new_tenant, published

COUNT = 4_000
LONG = " long enough that a partition takes its share in several batches" * 22
BODY: dict[str, Any] = {
    "messages": [
        {
            "message": f"n {n}{LONG}",
            "clientId": str(n % 97),
            **({"priority": "high"} if n % 10 == 0 else {"tags": ["t"]} if n % 3 == 0 else {}),
            **({"validitySeconds": 1} if n % 1000 == 500 else {}),
        }
        for n in range(COUNT)
    ]
}
BAD = 4

Found = list[tuple[ConsumerRecord, MessageEvent[SmsRequested]]]


def by_subject(found: Found) -> dict[str, set[tuple[str, bytes, bytes]]]:
    records: dict[str, set[tuple[str, bytes, bytes]]] = {}
    for record, event in found:
        records.setdefault(str(event.subject), set()).add((record.topic, record.key, record.value))
    return records


@pytest.mark.parametrize("point", ["reserve-publish", "bulk-publish:4", "publish-mark"])
async def test_killed_half_way_and_repeated_at_another_replica_it_is_the_same_batch(
    kafka: str, postgres: DatabaseFactory, tmp_path: Path, point: str
) -> None:
    dsn, tenant = await postgres(), new_tenant()
    async with (
        gateway_process(tmp_path, kafka, dsn, tenant, CRASH_AT=f"api_gateway.{point}") as doomed,
        gateway_process(tmp_path, kafka, dsn, tenant) as other,
    ):
        await asyncio.gather(doomed.ready(), other.ready())
        with pytest.raises(aiohttp.ClientError):
            await doomed.post("/sms/bulk", BODY, key="batch")
        assert await asyncio.wait_for(doomed.child.wait(), 10) == -signal.SIGKILL
        before = await published(kafka, tenant)
        if point == "reserve-publish":
            assert before == []
        elif point == "publish-mark":
            assert len(before) == COUNT - BAD
        else:
            assert 0 < len(before) < COUNT - BAD
        claimed = await other.post("/sms/bulk", BODY, key="batch")
        assert claimed.status == 409
        assert 1 <= int(claimed.headers["Retry-After"]) <= 10
        await _let_claims_run_out(dsn)
        answer = await other.post("/sms/bulk", BODY, key="batch")
        assert answer.status == 202
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert (answer.body["accepted"], answer.body["rejected"]) == (COUNT - BAD, BAD)
        after = await published(kafka, tenant)
        again = await other.post("/sms/bulk", BODY, key="batch")
        assert again.body == answer.body
    records = by_subject(after)
    ids = [item["id"] for item in answer.body["items"] if "id" in item]
    assert set(records) == set(ids)
    # byte for byte, so downstream knows a repeat by its event id
    assert {len(versions) for versions in records.values()} == {1}
    assert by_subject(before).items() <= records.items()
    assert len({event.id for _, event in after}) == len(ids)
    assert max(Counter(str(event.subject) for _, event in after).values()) == (1 if point == "reserve-publish" else 2)
    first_seen: dict[tuple[str, bytes], dict[int, None]] = {}
    for record, event in sorted(after, key=lambda pair: pair[0].offset):
        first_seen.setdefault((record.topic, record.key), {}).setdefault(event.data.message.number)
    assert all(list(numbers) == sorted(numbers) for numbers in first_seen.values())


async def test_without_a_key_each_call_is_a_batch_of_its_own(
    kafka: str, postgres: DatabaseFactory, tmp_path: Path
) -> None:
    dsn, tenant = await postgres(), new_tenant()
    async with gateway_process(tmp_path, kafka, dsn, tenant) as process:
        await process.ready()
        one, two = [await process.post("/sms/bulk", BODY) for _ in range(2)]
    assert one.body["batchId"] != two.body["batchId"]
    found = await published(kafka, tenant)
    accepted = {item["id"] for answer in (one, two) for item in answer.body["items"] if "id" in item}
    assert {str(event.subject) for _, event in found} == accepted
    assert len(found) == len(accepted) == 2 * (COUNT - BAD)
    numbers = [event.data.message.number for _, event in found]
    assert len(set(numbers)) == len(numbers)


async def _let_claims_run_out(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("UPDATE api.idempotency_keys SET claimed_at = now() - interval '11 s'")
    finally:
        await connection.close()
