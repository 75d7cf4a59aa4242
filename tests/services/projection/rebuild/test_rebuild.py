"""The outbox made anew from its journal, beside a live one."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from zlib import crc32

import asyncpg
import pytest

from deploy import REPOSITORY
from deploy.local.kafka import SHORT_RUN, Kafka
from libs.bus.admin import ensure_topics
from libs.contracts.statuses import Status
from libs.contracts.topics import PARTITIONS
from libs.service_kit.kafka import Cluster
from libs.storage import database
from libs.storage.database import Pool, open_database
from libs.storage.partitions import make_ahead
from services.projection import store
from services.projection.journal import Line
from services.projection.rebuild import rebuilding as steps
from services.projection.rebuild.rebuilding import AlreadyRebuilding
from services.projection.rebuild.refolding import UnreadableLine, folds_of, whole_journal
from services.projection.recent import RecentFolds
from services.projection.store import MIGRATIONS, PARTITIONED, SCHEMA
from tests.conftest import DatabaseFactory
from tests.services.projection.conftest import dump, fold_in, journalled, said
from tests.services.projection.program import READ, Program, Traffic
from tests.services.projection.rebuild.rebuilding import Outbox, before, numbers, open_outbox, stories
from tests.services.projection.stories import NAME, PHONE, START, TEXT, Story, Told
from tests.waiting import until


@pytest.fixture(scope="module")
async def broker(server_directory: Any) -> AsyncIterator[str]:
    """A broker of its own: the service's topics and group have fixed names."""
    async with Kafka(server_directory / "kafka-rebuild", java_options=SHORT_RUN) as broker:
        yield broker.bootstrap_servers


@pytest.fixture
async def outbox(broker: str, postgres: DatabaseFactory) -> AsyncIterator[Outbox]:
    async with open_outbox(await postgres(), broker) as outbox:
        yield outbox


async def shape(pool: Pool) -> list[tuple[Any, ...]]:
    """Every table and index of the schema, with what it belongs to and its options."""
    rows = await pool.fetch(
        "SELECT c.relname, c.relkind, c.reloptions, pg_get_expr(c.relpartbound, c.oid), p.inhparent::regclass::text,"
        " pg_get_indexdef(x.indexrelid), x.indisvalid FROM pg_class c LEFT JOIN pg_inherits p ON p.inhrelid = c.oid"
        " LEFT JOIN pg_index x ON x.indexrelid = c.oid WHERE c.relnamespace = 'outbox'::regnamespace ORDER BY 1"
    )
    return [tuple(row) for row in rows]


async def test_every_row_is_made_again_byte_for_byte_and_the_tables_are_as_before(outbox: Outbox) -> None:
    told = [step for story in stories(120) for step in story]
    old = Story(next(numbers), tenant="clinic", at=START - timedelta(days=60))  # falls into the default partition
    twin = Story(old.message.number, at=START - timedelta(days=60))  # the same id under another tenant
    assert twin.id == old.id
    await fold_in(outbox.pool, [*told, *old.delivered(), twin.command()], batch=50)
    before, was = await said(outbox.pool), await shape(outbox.pool)
    highest = await outbox.pool.fetchval("SELECT max(version) FROM messages")
    await outbox.rebuild()
    assert await said(outbox.pool) == before
    assert await shape(outbox.pool) == was
    assert await outbox.pool.fetchval("SELECT min(version) FROM messages") > highest
    assert await outbox.pool.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'outbox_rebuilt'") == 0
    assert await outbox.check() == ["equal"]
    assert any(line.startswith("folded 122 messages") for line in outbox.said)
    async with outbox.pool.acquire() as connection:
        await make_ahead(connection, PARTITIONED, START + timedelta(days=30))
    await outbox.rebuild()


async def test_its_transactions_may_be_idle_for_longer_than_those_of_services(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "IDLE_IN_TRANSACTION_SECONDS", 0.001)
    await fold_in(outbox.pool, [step for story in stories(200) for step in story])
    assert await outbox.check() == ["equal"]


async def test_what_is_wrong_is_found_by_name_and_healed_and_nobody_who_remembers_it_brings_it_back(
    outbox: Outbox, postgres: DatabaseFactory
) -> None:
    every = [Story(next(numbers)) for _ in range(5)]
    sound, changed, lost, stale, invented = (story.id for story in every)
    told = [story.delivered() for story in every]
    first = [step for story in told[:4] for step in story[:2]]
    remembering = RecentFolds(100)
    execute = outbox.pool.execute
    await fold_in(outbox.pool, first)
    await execute("UPDATE messages SET status = 'failed', fold = (SELECT fold FROM messages WHERE message_id = $1)"
                  " WHERE message_id = $2", sound, changed)  # fmt: skip
    # Applied to the wrong fold, which is remembered with the version that its row has.
    await fold_in(outbox.pool, [told[1][2], told[3][2]], recent=remembering)
    await execute("DELETE FROM messages WHERE message_id = $1", lost)
    await execute("UPDATE messages SET tags = '{other}' WHERE message_id = $1", stale)
    await execute("INSERT INTO messages SELECT tenant, $1, kind, person, status, gateway, tags, fold, version FROM messages"
                  " WHERE message_id = $2", invented, sound)  # fmt: skip
    assert await outbox.check() == [
        f"{changed} is not what its events say",
        f"{lost} is missing",
        f"{stale} is not what its events say",
        f"{invented} has no events",
        "4 rows differ",
    ]
    await outbox.rebuild()
    assert await outbox.check() == ["equal"]
    rest = [told[1][3], told[3][3], *told[2][2:]]
    await fold_in(outbox.pool, rest, recent=remembering)
    assert await outbox.check() == ["equal"]
    fresh = await open_database(await postgres(), SCHEMA, MIGRATIONS, 1, PARTITIONED)
    await fold_in(fresh, [*first, told[1][2], told[3][2], *rest])
    assert await said(outbox.pool) == await said(fresh)
    await fresh.close()


async def test_batches_of_the_journal_hold_whole_messages_and_together_all(outbox: Outbox) -> None:
    told = [step for story in stories(40) for step in story]
    await fold_in(outbox.pool, told, batch=7)
    for size in (1, 3, 7, 10_000):
        batches: list[list[Line]] = []
        async with outbox.pool.acquire() as connection:
            batches = [lines async for lines in whole_journal(connection, size)]
        of_batches = [{line.message_id for line in lines} for lines in batches]
        assert sum(map(len, of_batches)) == len(set().union(*of_batches)) == 40
        assert sum(map(len, batches)) == len({step.event.id for step in told})
        assert len(batches) == {1: 40, 10_000: 1}.get(size, len(batches))
        assert [max(ids) for ids in of_batches] == sorted(max(ids) for ids in of_batches)


async def test_a_journal_that_can_not_be_read_is_an_error_that_names_the_message_and_changes_nothing(
    outbox: Outbox,
) -> None:
    story = Story(next(numbers))
    await fold_in(outbox.pool, story.delivered())
    await outbox.pool.execute("UPDATE events SET body = '\\x91cd7fff'")
    before = await dump(outbox.pool)
    for work in (outbox.rebuild, outbox.check):
        with pytest.raises(UnreadableLine, match=str(story.id)):
            await work()
    assert await dump(outbox.pool) == before
    with pytest.raises(UnreadableLine):
        folds_of([Line(story.id, bytes(16), "sms.status", [0])])


async def test_two_rebuilds_at_once_are_refused(outbox: Outbox) -> None:
    going_on, may_end = asyncio.Event(), asyncio.Event()

    async def held(*arguments: Any) -> int:
        going_on.set()
        await may_end.wait()
        return await fold_journal(*arguments)

    fold_journal = steps._fold_journal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "_fold_journal", held)
        first = asyncio.create_task(outbox.rebuild())
        await going_on.wait()
        with pytest.raises(AlreadyRebuilding):
            await outbox.rebuild()
        may_end.set()
        await first


@dataclass
class Ground:
    """A projection that is running, and what it was told."""

    outbox: Outbox
    program: Program
    traffic: Traffic
    told: list[Told] = field(default_factory=list)

    async def publish(self, told: list[Told]) -> None:
        self.told += told
        await self.traffic.publish(told)

    async def applied(self) -> bool:
        return len(await journalled(self.outbox.pool)) == len({t.event.id for t in self.told})

    async def apply(self, told: list[Told]) -> None:
        await self.publish(told)
        await until(self.applied, "all applied")


@pytest.fixture
async def ground(outbox: Outbox, tmp_path: Any) -> AsyncIterator[Ground]:
    await ensure_topics(Cluster(outbox.kafka), READ)
    program, traffic = Program(tmp_path / "projection", outbox.kafka, outbox.dsn), Traffic(outbox.kafka)
    await traffic.start()
    async with outbox.pool.acquire() as connection:  # what other tests published is not for this outbox
        ends = {partition: store.Position(end, end) for partition, end in (await traffic.ends()).items()}
        await store.write_positions(connection, ends)
    await program.start()
    yield Ground(outbox, program, traffic)
    await program.stop()
    await traffic.stop()


async def test_what_is_applied_during_a_rebuild_and_after_it_is_not_lost(
    ground: Ground, postgres: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is applied while the journal is folded, while the tail is, and while the swap waits for it to end."""
    every = stories(150)
    shares = [[step for story in every for step in story[n : n + 1]] for n in range(max(map(len, every)))]
    more = iter([[*share, *Story(next(numbers)).delivered()] for share in shares])
    await ground.apply(next(more))
    await ground.outbox.pool.execute("UPDATE messages SET status = 'failed'")

    async def next_share() -> None:
        await ground.apply(next(more))

    async def share_that_must_wait() -> None:
        await ground.publish(next(more))

    async def folded_then_share(*arguments: Any) -> int:
        version = await fold_journal(*arguments)
        await next_share()
        return version

    fold_journal = steps._fold_journal
    monkeypatch.setattr(steps, "_fold_journal", folded_then_share)
    before(monkeypatch, "_stop_writers", next_share)
    before(monkeypatch, "_swap", share_that_must_wait)
    await ground.outbox.rebuild()
    for share in more:
        await ground.publish(share)
    await until(ground.applied, "all applied")
    assert await ground.outbox.check() == ["equal"]
    fresh = await open_database(await postgres(), SCHEMA, MIGRATIONS, 1, PARTITIONED)
    await fold_in(fresh, ground.told)
    assert await said(ground.outbox.pool) == await said(fresh)
    await fresh.close()
    assert (await ground.program.get(f"/internal/sms/{ground.told[0].event.subject}"))[0] == 200
    assert (await ground.program.get("/internal/sms?limit=50"))[0] == 200
    assert ground.program.child
    assert ground.program.child.running
    log = (ground.program.directory / "projection.log").read_text()
    assert not (troubles := [line for line in log.splitlines() if '"error"' in line or "Traceback" in line]), troubles


async def test_what_is_applied_before_others_that_wait_in_front_of_it_is_not_lost(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story(next(numbers))
    *begun, end = story.delivered()
    await ground.apply(begun)
    waiting = next(told for told in _submitted() if crc32(told.key) % PARTITIONS == crc32(end.key) % PARTITIONS)

    async def end_it() -> None:
        await ground.publish([waiting, end])
        await until(ended, "the end")

    async def ended() -> bool:
        query = "SELECT status = 'delivered' FROM messages WHERE message_id = $1"
        return await ground.outbox.pool.fetchval(query, story.id)

    before(monkeypatch, "_swap_when_caught_up", end_it)
    await ground.outbox.rebuild()
    await until(ground.applied, "all applied")
    assert await ground.outbox.check() == ["equal"]


def _submitted() -> Iterator[Told]:
    return (Story(number).status(Status.SUBMITTED) for number in numbers)


async def program(outbox: Outbox, *arguments: str, **environment: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.projection.rebuild", *arguments, cwd=REPOSITORY,
        env=os.environ | {"POSTGRES_DSN": outbox.dsn, "KAFKA_BOOTSTRAP_SERVERS": outbox.kafka, **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_a_crash_in_the_middle_is_harmless_and_the_program_says_with_its_status_what_it_found(
    outbox: Outbox,
) -> None:
    async def left_over() -> bool:
        return await outbox.pool.fetchval("SELECT count(*) = 1 FROM pg_namespace WHERE nspname = 'outbox_rebuilt'")

    story = Story(next(numbers))
    await fold_in(outbox.pool, [*story.delivered(), *Story(next(numbers)).delivered()])
    await outbox.pool.execute("UPDATE messages SET status = 'failed' WHERE message_id = $1", story.id)
    before = await dump(outbox.pool)
    assert (await program(outbox, CRASH_AT="projection.rebuild-swap"))[0] == -9
    assert await dump(outbox.pool) == before
    assert await left_over()
    status, said = await program(outbox, "--check")
    assert status == 1
    assert f"{story.id} is not what its events say" in said
    assert not any(personal in said for personal in (PHONE, TEXT, NAME, "client-1"))
    status, said = await program(outbox)
    assert (status, "swapped" in said) == (0, True), said
    assert not await left_over()
    assert (await program(outbox, "--check"))[0] == 0


async def test_what_is_not_there_is_named_in_one_line(outbox: Outbox) -> None:
    for arguments in ((), ("--check",)):
        status, said = await program(outbox, *arguments, POSTGRES_DSN="postgresql://nobody@127.0.0.1:1/none")
        assert (status, said.count("\n")) == (1, 1), said
        assert said.startswith("PostgreSQL: ConnectionRefusedError: ")
    status, said = await program(outbox, POSTGRES_DSN=f"{outbox.dsn}?target_session_attrs=standby")
    assert (status, said.startswith("PostgreSQL: TargetServerAttributeNotMatched: ")) == (1, True), said
    status, said = await program(outbox, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    (line,) = (line for line in said.splitlines() if "migration applied" not in line)
    assert (status, line.startswith("Kafka: KafkaConnectionError: ")) == (1, True), line


async def test_a_run_that_fails_leaves_no_lock(outbox: Outbox) -> None:
    with pytest.MonkeyPatch.context() as patch:

        async def fail() -> None:
            raise asyncpg.InterfaceError("gone")

        before(patch, "_swap", fail)
        with pytest.raises(asyncpg.InterfaceError):
            await outbox.rebuild()
    await outbox.rebuild()
