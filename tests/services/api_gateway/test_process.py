"""The API gateway as a process, on a real Kafka and a real Postgres."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from deploy.local.kafka import SHORT_RUN, Kafka
from deploy.local.ports import free_port
from deploy.local.postgres import Postgres
from libs.bus.codec import encode
from tests.conftest import DatabaseFactory
from tests.services.api_gateway.fakes import Answer
from tests.services.api_gateway.process import API_KEY, VALIDITY, GatewayProcess, gateway_process, new_tenant, published
from tests.waiting import until

TENANT = new_tenant()


@pytest.fixture(scope="module")
async def dsn(postgres: DatabaseFactory) -> str:
    return await postgres()


@pytest.fixture(scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory, kafka: str, dsn: str) -> AsyncIterator[GatewayProcess]:
    async with gateway_process(tmp_path_factory.mktemp("api"), kafka, dsn, TENANT) as process:
        await process.ready()
        yield process


async def test_what_is_accepted_is_in_kafka_under_the_key_of_its_person(api: GatewayProcess, kafka: str) -> None:
    sent = [
        {"message": f"n {n}", "clientId": str(n % 7), "priority": "high" if n % 5 == 0 else "normal"}
        for n in range(100)
    ]
    answers = await asyncio.gather(*(api.send(body, key=f"k{n}" if n % 2 else None) for n, body in enumerate(sent)))
    assert {a.status for a in answers} == {202}
    found = {str(event.subject): (record, event) for record, event in await published(kafka, TENANT)}
    for body, answer in zip(sent, answers, strict=True):
        record, event = found[answer.body["id"]]
        assert event.data.message.text == body["message"]
        assert event.data.message.number == answer.body["number"]
        assert event.data.message.valid_until - event.data.message.accepted_at == VALIDITY
        assert record.topic == ("sms.requested.high" if body["priority"] == "high" else "sms.requested")
        assert record.key == f"{TENANT}/client/{body['clientId']}".encode()
        assert record.headers == (("content-type", b"application/cloudevents+json"),)
    by_person = {(r.topic, r.key): set[int]() for r, _ in found.values()}
    for record, _ in found.values():
        by_person[record.topic, record.key].add(record.partition)
    assert all(len(partitions) == 1 for partitions in by_person.values())


async def test_one_persons_messages_keep_the_order_in_which_they_were_sent(api: GatewayProcess, kafka: str) -> None:
    answers = [await api.send({"message": str(n), "staffId": "in-order"}) for n in range(20)]
    ids = [a.body["id"] for a in answers]
    assert ids == sorted(ids)
    mine = [(r.offset, e) for r, e in await published(kafka, TENANT) if e.data.message.recipient.id == "in-order"]
    assert [str(e.subject) for _, e in sorted(mine, key=lambda pair: pair[0])] == ids


async def test_a_repeat_is_answered_from_postgres_and_published_once(api: GatewayProcess, kafka: str, dsn: str) -> None:
    first = await api.send({"message": "once", "clientId": "once"}, key="once")
    await _until_marked(dsn, f"{TENANT}/test/once")
    again = await api.send({"message": "once", "clientId": "once"}, key="once")
    other = await api.send({"message": "twice", "clientId": "once"}, key="once")
    assert (again.status, again.body) == (202, first.body)
    assert other.status == 422
    assert len([e for _, e in await published(kafka, TENANT) if str(e.subject) == first.body["id"]]) == 1


async def _settled(replica: GatewayProcess, body: dict[str, Any], key: str) -> Answer:
    """What a repeat gets once the replica that published it has marked the key: until then the other answers 409."""
    async with asyncio.timeout(10):
        while (answer := await replica.send(body, key=key)).status == 409:
            await asyncio.sleep(0.02)
        return answer


async def test_two_replicas_race_for_a_key_and_one_wins(
    api: GatewayProcess, kafka: str, dsn: str, tmp_path: Path
) -> None:
    async with gateway_process(tmp_path, kafka, dsn, TENANT) as second:
        await second.ready()
        body = {"message": "race", "clientId": "race"}
        answers = await asyncio.gather(
            *(replica.send(body, key=f"race{n}") for n in range(30) for replica in (api, second))
        )
        assert {a.status for a in answers} <= {202, 409}
        final = [[await _settled(replica, body, f"race{n}") for replica in (api, second)] for n in range(30)]
    events = Counter(str(e.subject) for _, e in await published(kafka, TENANT) if e.data.message.recipient.id == "race")
    assert set(events.values()) == {1}
    assert len(events) == 30
    for one, two in final:
        assert one.body == two.body
        assert one.body["id"] in events
    assert {a.body["id"] for a in answers if a.status == 202} <= set(events)


async def test_a_reserved_event_whose_publisher_died_is_published_by_a_retry(
    api: GatewayProcess, kafka: str, dsn: str
) -> None:
    body = {"message": "orphan", "clientId": "orphan"}
    first = await api.send(body, key="orphan")
    key = f"{TENANT}/test/orphan"
    await _until_marked(dsn, key)
    ((_, event),) = [p for p in await published(kafka, TENANT) if p[1].data.message.recipient.id == "orphan"]
    connection = await asyncpg.connect(dsn)
    try:  # as it stands after a crash between reserve and publish
        await connection.execute(
            "UPDATE api.idempotency_keys SET event = $2, record_key = $3, claimed_at = now() WHERE key = $1",
            key,
            encode(event),
            f"{TENANT}/client/orphan".encode(),
        )
        waiting = await api.send(body, key="orphan")
        assert waiting.status == 409
        assert 1 <= int(waiting.headers["Retry-After"]) <= 10
        await connection.execute(
            "UPDATE api.idempotency_keys SET claimed_at = now() - interval '10.1 s' WHERE key = $1", key
        )
    finally:
        await connection.close()
    retried = await api.send(body, key="orphan")
    assert (retried.status, retried.body) == (202, first.body)
    mine = [e for _, e in await published(kafka, TENANT) if e.data.message.recipient.id == "orphan"]
    assert mine == [event, event]


@pytest.mark.parametrize("point", ["reserve-publish", "publish-mark", "mark-answer"])
async def test_after_a_crash_the_same_key_gets_the_same_ids(
    api: GatewayProcess, kafka: str, dsn: str, tmp_path: Path, point: str
) -> None:
    body, key = {"message": point, "clientId": point}, f"crash-{point}"
    async with gateway_process(tmp_path, kafka, dsn, TENANT, CRASH_AT=f"api_gateway.{point}") as doomed:
        await doomed.ready()
        if point == "mark-answer":  # dies soon after the answer
            assert (await doomed.send(body, key=key)).status == 202
        else:
            with pytest.raises(aiohttp.ClientError):
                await doomed.send(body, key=key)
        assert await asyncio.wait_for(doomed.child.wait(), 10) == -signal.SIGKILL
    mine = [e for _, e in await published(kafka, TENANT) if e.data.message.text == point]
    assert len(mine) == (0 if point == "reserve-publish" else 1)
    await _claimed(dsn, key, seconds_ago=0)  # however long it took to look
    answer = await api.send(body, key=key)
    assert answer.status == (202 if point == "mark-answer" else 409)
    if answer.status == 409:
        await _claimed(dsn, key, seconds_ago=11)
        answer = await api.send(body, key=key)
    assert answer.status == 202
    mine = [e for _, e in await published(kafka, TENANT) if e.data.message.text == point]
    assert {str(e.subject) for e in mine} == {answer.body["id"]}
    assert len({e.id for e in mine}) == 1
    assert len(mine) == (2 if point == "publish-mark" else 1)


async def test_sigterm_answers_what_is_inside_and_ends_cleanly(kafka: str, dsn: str, tmp_path: Path) -> None:
    tenant = new_tenant()
    async with gateway_process(tmp_path, kafka, dsn, tenant) as process:
        await process.ready()
        async with _nothing_reserved(dsn) as until_tried:
            waiting = [asyncio.create_task(process.send(key=f"k{n}")) for n in range(20)]
            bulk = {"messages": [{"message": "in bulk", "clientId": "1"}]}
            waiting.append(asyncio.create_task(process.post("/sms/bulk", bulk, key="bulk")))
            await until_tried()
            process.child.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert await asyncio.wait_for(process.child.wait(), 20) == 0
    bodies = [a.body for a in answers if not isinstance(a, BaseException) and a.status == 202]
    accepted = {item["id"] for body in bodies for item in body.get("items", [body])}
    assert accepted
    assert {str(e.subject) for _, e in await published(kafka, tenant)} == accepted
    connection = await asyncpg.connect(dsn)
    try:
        unmarked = await connection.fetchval(
            "SELECT count(*) FROM api.idempotency_keys WHERE starts_with(key, $1) AND event IS NOT NULL", f"{tenant}/"
        )
    finally:
        await connection.close()
    assert unmarked == 0


@asynccontextmanager
async def _nothing_reserved(dsn: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Whoever reserves a key waits until this ends; what is yielded waits for someone who does."""
    holder, watcher = await asyncpg.connect(dsn), await asyncpg.connect(dsn)

    async def until_tried() -> None:
        async with asyncio.timeout(10):
            while not await watcher.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO idempotency_keys%'"
            ):
                await asyncio.sleep(0.01)

    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE api.idempotency_keys IN SHARE MODE")
            yield until_tried
    finally:
        await holder.close()
        await watcher.close()


async def test_old_keys_are_forgotten_from_the_start_on(
    api: GatewayProcess, kafka: str, dsn: str, tmp_path: Path
) -> None:
    assert (await api.send(key="old")).status == 202
    key = f"{TENANT}/test/old"
    await _until_marked(dsn, key)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "UPDATE api.idempotency_keys SET reserved_at = now() - interval '25 hours' WHERE key = $1", key
        )
        async with gateway_process(tmp_path, kafka, dsn, TENANT):
            gone = "SELECT NOT EXISTS (SELECT FROM api.idempotency_keys WHERE key = $1)"
            await until(lambda: connection.fetchval(gone, key))
    finally:
        await connection.close()


async def test_neither_secrets_nor_texts_nor_numbers_are_logged(api: GatewayProcess) -> None:
    await api.send({"message": "Very private text", "clientId": "private-person"}, key="private-key")
    async with api.session.put(
        f"{api.url}/clients/private-person",
        json={"phone": "+254700004711"},
        headers={"Authorization": f"Bearer {API_KEY}"},
    ) as answer:
        assert answer.status == 503  # no resolver here
        assert "Retry-After" in answer.headers
    log = api.child.log.read_text()
    assert "upstream away" in log
    number = "0004711"  # more digits than a time has
    for secret in ("Very private", "private-person", "private-key", number, API_KEY, "internal-token"):
        assert secret not in log


async def test_it_says_503_while_kafka_is_away_and_recovers(dsn: str, tmp_path: Path) -> None:
    tenant = new_tenant()
    async with Kafka(tmp_path / "kafka", java_options=SHORT_RUN) as broker:
        settings = {"ACCEPT_TIMEOUT_SECONDS": "1.5"}
        async with gateway_process(tmp_path, broker.bootstrap_servers, dsn, tenant, **settings) as process:
            await process.ready()
            before = await process.send(key="before")
            assert before.status == 202
            await broker.stop()
            refused = await process.send(key="during")
            plain = await process.send()
            assert (refused.status, plain.status) == (503, 503)
            assert int(refused.headers["Retry-After"]) >= 1
            status, health = await process.health()
            assert status == 503
            assert "kafka for callers" in health["missing"]
            await process.until_missing("kafka")
            await broker.start()
            async with asyncio.timeout(60):
                while (again := await process.send(key="during")).status != 202:
                    assert again.status in (409, 503)
                    await asyncio.sleep(0.2)
            await process.ready()
            repeated = await process.send(key="before")
            assert repeated.body == before.body
            ids = {str(e.subject) for _, e in await published(broker.bootstrap_servers, tenant)}
            assert {before.body["id"], again.body["id"]} <= ids


async def test_without_postgres_requests_without_a_key_are_accepted_and_those_with_one_once_it_is_back(
    kafka: str, server_directory: Path, tmp_path: Path
) -> None:
    tenant = new_tenant()
    async with Postgres(server_directory / "gateway-postgres") as server:
        dsn = await server.create_database("api")
        async with gateway_process(tmp_path, kafka, dsn, tenant) as process:
            await process.ready()
            before = await process.send(key="before")
            assert before.status == 202
            await server.stop()
            refused = await process.send(key="during")
            plain = await process.send()
            assert (refused.status, plain.status) == (503, 202)
            assert int(refused.headers["Retry-After"]) >= 1
            status, health = await process.health()
            assert status == 503
            assert "postgres for callers" in health["missing"]
            await server.start()
            async with asyncio.timeout(30):
                while (again := await process.send(key="during")).status != 202:
                    assert again.status in (409, 503)
                    await asyncio.sleep(0.1)
            assert (await process.send(key="before")).body == before.body
            await process.ready()
    ids = [str(e.subject) for _, e in await published(kafka, tenant)]
    assert sorted(ids) == sorted([before.body["id"], plain.body["id"], again.body["id"]])


async def test_it_waits_for_neighbours_that_are_not_there_yet(dsn: str, tmp_path: Path) -> None:
    broker = Kafka(tmp_path / "kafka", java_options=SHORT_RUN)
    async with gateway_process(tmp_path, broker.bootstrap_servers, dsn, new_tenant()) as process:
        async with asyncio.timeout(20):
            while (health := await process.health())[0] != 503:
                await asyncio.sleep(0.05)
        assert health[1]["missing"]
        async with broker:
            await process.ready()
            assert (await process.send()).status == 202


async def test_it_can_be_stopped_while_it_waits_for_kafka(dsn: str, tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    async with gateway_process(tmp_path, nobody, dsn, new_tenant()) as process:
        async with asyncio.timeout(30):
            while "topics" not in str((await process.health())[1]):
                await asyncio.sleep(0.05)
        process.child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.child.wait(), 20) == 0


async def _claimed(dsn: str, key: str, seconds_ago: float) -> None:
    """Have a key's claim be so old."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "UPDATE api.idempotency_keys SET claimed_at = now() - make_interval(secs => $2) WHERE key = $1",
            f"{TENANT}/test/{key}",
            seconds_ago,
        )
    finally:
        await connection.close()


async def _until_marked(dsn: str, key: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(10):
            while await connection.fetchval("SELECT event IS NOT NULL FROM api.idempotency_keys WHERE key = $1", key):
                await asyncio.sleep(0.02)
    finally:
        await connection.close()
