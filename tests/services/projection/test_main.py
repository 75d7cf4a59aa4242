"""The projection as a process, between a real Kafka and a real PostgreSQL: fed, poisoned, killed, doubled, set back."""

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from deploy.local.kafka import SHORT_RUN, Kafka
from deploy.local.ports import free_port
from libs.bus.codec import encode
from libs.bus.consumer_lane import MAX_RECORDS
from libs.bus.dead_letters import LIMIT
from libs.contracts import topics
from libs.contracts.events import Priority
from libs.contracts.http.answers import SmsPage, SmsWithHistory
from libs.contracts.statuses import Status
from libs.service_kit.internal import HEADER, TENANT_HEADER
from libs.service_kit.lifecycle import Lifecycle
from libs.storage.database import Pool, open_database
from services.projection import gathering, main, store
from services.projection.settings import ProjectionSettings
from services.projection.store import MIGRATIONS, PARTITIONED, SCHEMA
from tests.conftest import DatabaseFactory
from tests.services.program import TOKEN
from tests.services.projection.conftest import dump, fold_in, said
from tests.services.projection.program import CONFIGURED, READ, Program, Traffic, settings
from tests.services.projection.stories import TENANT, Story, Told, tell
from tests.waiting import until

_numbers = count(1)


@dataclass
class Ground:
    program: Program
    second: Program
    traffic: Traffic
    pool: Pool
    told: list[Told]
    """Everything that was published and is no poison."""

    async def publish(self, told: list[Told]) -> None:
        self.told += told
        await self.traffic.publish(told)

    async def applied(self) -> bool:
        """Whether the outbox has passed everything that is in Kafka."""
        ends = await self.traffic.ends()
        async with self.pool.acquire() as connection:
            stored = await store.read_positions(connection)
        return all(
            partition in stored and stored[partition].next_offset >= end for partition, end in ends.items() if end
        )


@pytest.fixture(scope="module")
async def ground(server_directory: Any, postgres: DatabaseFactory, tmp_path_factory: Any) -> AsyncIterator[Ground]:
    """A broker of its own: the service's topics and group have fixed names. It makes all that is read."""
    async with Kafka(server_directory / "kafka-projection", java_options=SHORT_RUN) as broker:
        kafka = broker.bootstrap_servers
        dsn = await postgres()
        pool = await open_database(dsn, SCHEMA, MIGRATIONS, 2, PARTITIONED)
        directory = tmp_path_factory.mktemp("projection")
        programs = [Program(directory / name, kafka, dsn) for name in ("first", "second")]
        await programs[0].start()
        traffic = Traffic(kafka)
        await traffic.start()
        yield Ground(*programs, traffic, pool, [])
        for program in programs:
            await program.stop()
        await traffic.stop()
        await pool.close()


def stories(messages: int) -> list[Told]:
    """Told of all at once, as Kafka would have them: each in its order, among one another in none."""
    random = Random(messages)
    each = [tell(random, next(_numbers)) for _ in range(messages)]
    return [told for step in range(max(map(len, each))) for story in each for told in story[step : step + 1]]


async def expected(ground: Ground, postgres: DatabaseFactory) -> dict[str, Any]:
    """What the outbox must be: all events folded at once, by nobody else, in the order in which they were told."""
    pool = await open_database(await postgres(), SCHEMA, MIGRATIONS, 1, PARTITIONED)
    await fold_in(pool, ground.told)
    rows = await said(pool)
    await pool.close()
    return rows


async def test_what_is_published_is_read_with_its_history(running: Ground) -> None:
    story = Story(next(_numbers), priority=Priority.HIGH, gateway="spare", phone="+254711000001")
    waited = [story.requested(), story.deferred(), story.due()]
    await running.publish([*waited, story.dispatched(), story.status(Status.SUBMITTED), story.status(Status.DELIVERED)])

    async def told() -> bool:
        status, body = await running.program.get(f"/internal/sms/{story.id}")
        assert status == 200
        return [(t.status, t.topic) for t in SmsWithHistory.model_validate_json(body).history] == [
            ("accepted", "sms.requested.high"),
            ("scheduled", "sms.deferred.high"),
            ("accepted", "sms.returned.high"),
            ("queued", "sms.dispatch.spare.high"),
            ("submitted", "sms.status"),
            ("delivered", "sms.status"),
        ]

    await until(told, "the whole history")
    for query in ("gateway=spare&limit=1", "number=0711000001"):
        _, body = await running.program.get(f"/internal/sms?{query}")
        assert [item.id for item in SmsPage.model_validate_json(body).items] == [story.id]
    assert (await running.program.get(f"/internal/sms/{story.id}", tenant="clinic"))[0] == 404
    assert (await running.program.get(f"/internal/sms/{story.id}", token="wrong"))[0] == 401


async def test_a_read_right_after_the_request_finds_it(running: Ground) -> None:
    for _ in range(20):
        story = Story(next(_numbers))
        await running.publish([story.requested()])
        assert (await running.program.get(f"/internal/sms/{story.id}"))[0] == 200


async def test_a_read_of_an_unknown_id_waits_no_longer_than_it_must(running: Ground) -> None:
    await until(running.applied, "all applied")
    assert (await running.program.get(f"/internal/sms/{uuid4()}"))[0] == 404


async def test_a_read_waits_for_a_projection_that_is_held_up_and_then_says_that_it_can_not_know(
    running: Ground,
) -> None:
    story = Story(next(_numbers))

    async def status() -> int:
        return (await running.program.get(f"/internal/sms/{story.id}"))[0]

    async def found() -> bool:
        return await status() == 200

    async with running.pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE offsets IN EXCLUSIVE MODE")  # no batch can be applied
        await running.publish([story.requested()])
        assert await status() == 503
        waiting = asyncio.create_task(status())
        await asyncio.sleep(0.2)
        assert not waiting.done()
    await waiting
    await until(found, "the message to be found")


async def test_what_can_not_be_read_may_come_together_although_it_lay_apart(running: Ground) -> None:
    topic, letters = topics.COMMANDS.name, 3 * LIMIT
    before = await running.traffic.count(topics.COMMANDS.dead_letter)
    await running.traffic.raw(topic, *(b"no JSON" for _ in range(letters)))
    await running.publish(Story(next(_numbers)).delivered())
    await until(running.applied, "all applied")
    assert await running.traffic.count(topics.COMMANDS.dead_letter) == before + letters


@pytest.mark.parametrize("topic", READ, ids=lambda topic: topic.name)
async def test_poison_goes_to_the_dead_letters_and_the_rest_goes_on(running: Ground, topic: topics.Topic) -> None:
    before = await running.traffic.count(topic.dead_letter)
    story = Story(next(_numbers))
    good = {
        topics.STATUS.data: story.delivered()[2],
        topics.REQUESTED.data: story.requested(),
        topics.RETURNED.data: story.returned(),
        topics.DEFERRED.data: story.deferred(),
        topics.COMMANDS.data: story.command(),
        topics.dispatch("demo").data: story.dispatched(),
    }[topic.data]
    without_time = replace(good.event, subject=uuid4())
    without_id = replace(good.event, id="not 32 digits of hex")
    poison = [b"\x00\xff", b"{}", encode(good.event)[:-9], encode(without_time), encode(without_id)]
    await running.traffic.raw(topic.name, poison[0])
    await running.publish(story.delivered())
    await running.traffic.raw(topic.name, *poison[1:])
    # Also past the poison at a partition's end: else an unknown message could not be told from one to come.
    await until(running.applied, "all applied")
    assert await running.traffic.count(topic.dead_letter) == before + len(poison)
    assert (await running.program.get(f"/internal/sms/{story.id}"))[0] == 200


async def test_what_was_committed_to_kafka_is_what_is_stored(running: Ground) -> None:
    await running.publish(stories(5))

    async def told() -> bool:
        return await running.traffic.committed() == await running.traffic.ends()

    await until(running.applied, "all applied")
    await until(told, "Kafka is told")


@pytest.mark.parametrize("point", ["receive-apply", "apply-commit"])
async def test_killed_at_any_point_it_loses_and_changes_nothing(
    running: Ground, postgres: DatabaseFactory, point: str
) -> None:
    await running.publish(stories(20))
    await until(running.applied, "all applied")
    before = await dump(running.pool)
    assert await running.program.stop() == 0
    child = await running.program.start(crash_at=f"projection.{point}", ready=False)
    new = stories(20)
    await running.publish(new)

    await until(lambda: not child.running, "the crash")
    assert child.exit_code == -signal.SIGKILL
    if point == "receive-apply":
        assert await dump(running.pool) == before
    await running.program.start()
    await until(running.applied, "all applied")
    assert await said(running.pool) == await expected(running, postgres)


async def test_replicas_that_join_and_leave_lose_nothing(running: Ground, postgres: DatabaseFactory) -> None:
    async def traffic() -> None:
        for _ in range(30):
            await running.publish(stories(10))
            await asyncio.sleep(0.05)

    under_way = asyncio.create_task(traffic())
    await running.second.start()
    await running.publish(stories(20))
    child = running.program.child
    assert child is not None
    await child.kill()
    await running.publish(stories(20))
    await running.program.start()
    assert await running.second.stop() == 0
    await under_way
    await until(running.applied, "all applied")
    assert await said(running.pool) == await expected(running, postgres)


async def test_set_back_to_the_beginning_it_changes_no_row(running: Ground) -> None:
    await running.publish(stories(20))
    await until(running.applied, "all applied")
    assert await running.program.stop() == 0
    before = await dump(running.pool)
    await running.traffic.commit(dict.fromkeys(await running.traffic.ends(), 0))
    await running.pool.execute("DELETE FROM offsets")
    await running.program.start()
    await until(running.applied, "all applied anew")
    assert await dump(running.pool) == before


async def test_the_stored_offsets_win_over_what_kafka_has_as_committed(
    running: Ground, postgres: DatabaseFactory
) -> None:
    """As after a restore of the database: Kafka believes everything applied."""
    await until(running.applied, "all applied")
    assert await running.program.stop() == 0
    await running.traffic.commit(await running.traffic.ends())
    await running.pool.execute("TRUNCATE events, messages, personal, offsets")
    await running.program.start()
    await until(running.applied, "all applied anew")
    assert await said(running.pool) == await expected(running, postgres)


async def test_reads_that_take_all_their_connections_hold_up_no_fold(
    ground: Ground, postgres: DatabaseFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backlog of messages that the outbox must look for: each batch is prepared while the one before it is written."""
    await ground.program.stop()
    await ground.publish([Story(next(_numbers)).delivered()[-1] for _ in range(5 * MAX_RECORDS)])
    pools, busy = list[Pool](), list[Any]()

    async def opened(*arguments: Any) -> Pool:
        pools.append(await open_database(*arguments))
        if len(pools) == 2:
            busy.extend([await pools[1].acquire() for _ in range(pools[1].get_max_size())])
        return pools[-1]

    monkeypatch.setattr(main, "open_database", opened)
    given = {"projection_recent_folds": 0, "projection_read_seconds": 2, "projection_wait_seconds": 30}
    told = settings(await postgres(), ground.program.kafka, tmp_path, ops_port=ground.program.port, **given)
    life = Lifecycle(told)
    await main.start(life, told, CONFIGURED)
    try:
        await until(replace(ground, pool=pools[0]).applied, "all applied")
        assert (await asyncio.wait_for(ground.program.get("/internal/sms"), 20))[0] == 503
        assert [pool.get_max_size() for pool in pools] == [main.FOLDING, told.postgres_connections - main.FOLDING]
    finally:
        for connection in busy:
            await pools[1].release(connection)
        await life.stop_all()


async def test_a_read_hurries_the_replica_that_keeps_its_message_back(
    ground: Ground, postgres: DatabaseFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two replicas has some of the partitions, and hands nothing on unless somebody waits for it."""
    await ground.program.stop()
    monkeypatch.setattr(gathering, "KEPT_SECONDS", 3600.0)
    dsn = await postgres()

    def replica(port: int) -> tuple[Lifecycle, ProjectionSettings]:
        told = settings(dsn, ground.program.kafka, tmp_path, ops_port=port, projection_wait_seconds=30)
        return Lifecycle(told), told

    async def status(port: int, path: str) -> int:
        headers = {HEADER: TOKEN, TENANT_HEADER: TENANT}
        async with session.get(f"http://127.0.0.1:{port}{path}", headers=headers) as response:
            return response.status

    async def both_joined() -> bool:
        return all(life.health.missing().keys() <= {"start"} for life, _ in replicas)

    ports = [free_port(), free_port()]
    replicas = [replica(port) for port in ports]
    async with aiohttp.ClientSession() as session:
        try:
            for life, told in replicas:
                await main.start(life, told, CONFIGURED)
            await until(both_joined, "both in the group")
            asked = [Story(next(_numbers), person=f"client-{n}") for n in range(8)]
            await ground.publish([story.requested() for story in asked])
            for n, story in enumerate(asked):
                assert await status(ports[n % 2], f"/internal/sms/{story.id}") == 200
        finally:
            for life, _ in replicas:
                await life.stop_all()


async def test_lost_connections_to_postgres_are_made_again(running: Ground) -> None:
    await running.pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'outbox' AND pid <> pg_backend_pid() AND datname = current_database()"
    )
    story = Story(next(_numbers))
    await running.publish(story.delivered())
    await until(running.applied, "all applied")
    assert (await running.program.get(f"/internal/sms/{story.id}"))[0] == 200


async def test_no_number_and_no_text_is_logged(running: Ground) -> None:
    for program in (running.program, running.second):
        log = (program.directory / "projection.log").read_text()
        assert "started" in log
        for personal in ("49151123", "49151876", "Ann Example", "appointment"):  # more digits than a time has
            assert personal not in log
