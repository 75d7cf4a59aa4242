"""The scheduler as a process, between a real Kafka and a real PostgreSQL: fed, poisoned, killed, started again, set back."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from deploy.local.kafka import SHORT_RUN, Kafka
from libs.bus.codec import encode
from libs.bus.group_progress import GroupProgress
from libs.contracts import topics
from libs.contracts.events import MessageEvent, Priority, SmsDeferred
from libs.contracts.statuses import Status
from libs.contracts.topics import Topic
from libs.service_kit.kafka import Cluster
from services.scheduler.main import CONSUMED
from tests.conftest import DatabaseFactory
from tests.services.scheduler.builders import command, deferred
from tests.services.scheduler.program import HeldBack, Program, Traffic
from tests.services.traffic import commit
from tests.waiting import WITHIN_SECONDS, until

RETURNED = {topics.returned(priority).name for priority in Priority}
HAVE_LEFT = 'postrider_deferrals_settled_total{outcome="returned"}'
_ids = count(1)


@dataclass
class Ground:
    program: Program
    traffic: Traffic
    dsn: str
    directory: Path
    kafka: str
    broker: Kafka


@pytest.fixture(scope="module")
async def ground(server_directory: Path, postgres: DatabaseFactory, tmp_path_factory: Any) -> AsyncIterator[Ground]:
    """A broker of its own: the service's topics and group have fixed names. It makes all that it reads and writes."""
    async with Kafka(server_directory / "kafka-scheduler", java_options=SHORT_RUN) as broker:
        dsn = await postgres()
        directory = tmp_path_factory.mktemp("scheduler")
        program = Program(directory, broker.bootstrap_servers, dsn)
        await program.start()
        traffic = Traffic(broker.bootstrap_servers)
        await traffic.start()
        yield Ground(program, traffic, dsn, directory, broker.bootstrap_servers, broker)
        await program.stop()
        await traffic.stop()


def soon(seconds: float = 0.0, **given: Any) -> MessageEvent[SmsDeferred]:
    """Due so many seconds from now, for a person of its own."""
    return deferred(datetime.now(UTC) + timedelta(seconds=seconds), person=f"p{next(_ids)}", **given)


async def back(ground: Ground, *causes: MessageEvent[SmsDeferred]) -> None:
    """Wait until each has been returned."""

    def all_are() -> bool:
        found = {e.subject for r, e in ground.traffic.about(*causes) if r.topic in RETURNED}
        return found == {cause.subject for cause in causes}

    await until(all_are, "messages that are due")


async def test_each_comes_back_when_it_is_due_and_not_before(running: Ground) -> None:
    causes = [soon(3 + n / 500) for n in range(50)]
    await running.traffic.say(*causes[::-1])
    await back(running, *causes)
    due = {cause.subject: cause.data.due_at for cause in causes}
    for record, event in running.traffic.about(*causes):
        assert datetime.fromtimestamp(record.timestamp / 1000, UTC) >= due[event.subject] - timedelta(milliseconds=1)
        assert event.data.leg.leg_at == due[event.subject]
    in_order = sorted((r.partition, r.offset, due[e.subject]) for r, e in running.traffic.about(*causes))
    assert in_order == sorted(in_order, key=itemgetter(0, 2)), "in each partition"


@pytest.mark.parametrize(
    ("priority", "group"), [(Priority.NORMAL, "scheduler"), (Priority.HIGH, "scheduler.high")], ids=list(Priority)
)
async def test_each_priority_comes_and_goes_by_topics_of_its_own_and_is_read_in_a_lane_of_its_own(
    running: Ground, priority: Priority, group: str
) -> None:
    topic, before = topics.deferred(priority), len(running.traffic.dead(topics.deferred(priority)))
    await running.traffic.say(cause := soon(priority=priority))
    await running.traffic.raw(topic, b"{")
    await back(running, cause)
    [(record, _)] = running.traffic.about(cause)
    assert record.topic == topics.returned(priority).name
    await until(lambda: len(running.traffic.dead(topic)) > before, "the dead letter")
    assert dict(running.traffic.dead(topic)[-1].headers)["dead-letter-group"].decode() == group


async def test_cancellations_meet_what_comes_at_once_in_the_other_lane(running: Ground) -> None:
    causes = [soon(3600, priority=Priority.HIGH) for _ in range(300)]
    asked = [command(cause.subject) for cause in causes]
    steps = [(causes[n : n + 10], asked[n : n + 10]) for n in range(0, len(causes), 10)]
    await asyncio.gather(*(running.traffic.say(*events) for step in steps for events in step))
    await until(lambda: {e.subject for _, e in running.traffic.about(*causes)} == {c.subject for c in causes}, "all")
    assert {e.data.status for _, e in running.traffic.about(*causes)} == {Status.CANCELLED}


async def test_a_cancellation_ends_what_waits(running: Ground) -> None:
    waiting, marked = soon(3600), soon(3600)
    await running.traffic.say(waiting, command(marked.subject))
    await running.traffic.say(command(waiting.subject), marked)
    await until(lambda: len(running.traffic.about(waiting, marked)) == 2, "two cancellations")
    assert {e.data.status for _, e in running.traffic.about(waiting, marked)} == {Status.CANCELLED}


@pytest.mark.parametrize("topic", CONSUMED, ids=lambda topic: topic.name)
async def test_poison_goes_to_the_dead_letters_and_the_rest_goes_on(running: Ground, topic: Topic) -> None:
    before = len(running.traffic.dead(topic))
    poison = [b"\x00\xff", b"{", b"{}", b"[]", json.dumps({"type": "postrider.other.v1"}).encode()]
    await running.traffic.raw(topic, *poison)
    await until(lambda: len(running.traffic.dead(topic)) >= before + len(poison), "dead letters")
    assert sorted(r.value for r in running.traffic.dead(topic)[before:]) == sorted(poison)
    good = soon()
    await running.traffic.say(good)
    await back(running, good)


async def test_a_poisoned_deferral_that_can_be_named_has_it_in_its_history_and_never_leaves(running: Ground) -> None:
    cause = soon()
    event = json.loads(encode(cause))
    event["data"]["message"]["text"] = 5
    await running.traffic.raw(topics.DEFERRED, json.dumps(event).encode())
    await until(lambda: bool(running.traffic.about(cause)), "the end of the message")
    await running.traffic.say(cause, other := soon())
    await back(running, other)
    [(record, ended)] = running.traffic.about(cause)
    assert (record.topic, ended.data.status, ended.data.reason.code) == ("sms.status", Status.REJECTED, "poison")
    assert ended.data.leg == cause.data.leg


async def test_a_person_that_postgres_cannot_store_is_a_dead_letter_and_not_the_end(running: Ground) -> None:
    before = len(running.traffic.dead(topics.DEFERRED))
    bad, good = deferred(datetime.now(UTC), person="a\0b"), soon()
    await running.traffic.say(bad, good)
    await back(running, good)
    await until(lambda: len(running.traffic.dead(topics.DEFERRED)) == before + 1, "the dead letter")


@pytest.mark.parametrize(
    ("point", "times"), [("scheduler.claim-publish", 1), ("scheduler.publish-mark", 2), ("scheduler.receive-store", 1)]
)
async def test_killed_while_something_leaves_it_is_returned_as_one_and_the_same_event(
    running: Ground, point: str, times: int
) -> None:
    assert await running.program.stop() == 0
    cause = soon()
    await running.traffic.say(cause)
    child = await running.program.start(crash_at=point, ready=False)
    await until(lambda: not child.running, "the crash")
    assert child.exit_code == -signal.SIGKILL
    await running.traffic.say(command(cause.subject))  # too late where it was taken already
    await running.program.start()
    taken = point != "scheduler.receive-store"
    if taken:
        await until(lambda: len(running.traffic.about(cause)) == times, "the return")
    else:
        await until(lambda: bool(running.traffic.about(cause)), "an end")
    await running.traffic.say(last := soon())
    await back(running, last)
    said = [(r.topic, r.key, r.value) for r, _ in running.traffic.about(cause)]
    assert len(said) == times
    assert len(set(said)) == 1
    assert await _left(running) == 0


@pytest.mark.parametrize("point", ["scheduler.store-cancel", "scheduler.cancel-publish", "scheduler.publish-commit"])
async def test_killed_while_it_cancels_it_says_the_same_again(running: Ground, point: str) -> None:
    cause = soon(3600)
    await running.traffic.say(cause)
    await _known(running, cause)
    assert await running.program.stop() == 0
    await running.traffic.say(command(cause.subject))
    child = await running.program.start(crash_at=point, ready=False)
    await until(lambda: not child.running, "the crash")
    await running.program.start()
    times = 2 if point == "scheduler.publish-commit" else 1
    await until(lambda: len(running.traffic.about(cause)) == times, "the cancellation")
    assert len({(r.topic, r.value) for r, _ in running.traffic.about(cause)}) == 1


async def test_two_replicas_share_the_work_and_one_goes_on_alone_when_the_other_dies(running: Ground) -> None:
    second = Program(running.directory / "second", running.kafka, running.dsn)
    child = await second.start()
    before = await running.program.metric(HAVE_LEFT)
    async with asyncio.timeout(WITHIN_SECONDS):
        while not (await second.metric(HAVE_LEFT) and await running.program.metric(HAVE_LEFT) > before):
            some = [soon() for _ in range(10)]
            await running.traffic.say(*some)
            await back(running, *some)
    causes = [soon(1 + n / 100) for n in range(200)]
    await running.traffic.say(*causes[:100])
    await until(lambda: bool(running.traffic.about(*causes)), "the first")
    child.send_signal(signal.SIGKILL)
    await running.traffic.say(*causes[100:])
    await back(running, *causes)
    await second.stop()
    said = [(e.subject, r.value) for r, e in running.traffic.about(*causes)]
    assert len(set(said)) == len(causes)


async def test_at_sigterm_what_is_leaving_is_finished(running: Ground) -> None:
    causes = [soon() for _ in range(1500)]
    await running.traffic.say(*causes)
    await until(lambda: bool(running.traffic.about(*causes)), "the first")
    assert await running.program.stop() == 0
    connection = await asyncpg.connect(running.dsn)
    leaving = "SELECT count(*) FROM scheduler.entries WHERE settled_at IS NULL AND leaving_until IS NOT NULL"
    assert await connection.fetchval(leaving) == 0
    await connection.close()
    await running.program.start()
    await back(running, *causes)
    assert len(running.traffic.about(*causes)) == len(causes)


async def test_it_waits_for_the_resolver_and_goes_on_as_that_takes_what_was_returned(running: Ground) -> None:
    assert await running.program.stop() == 0
    resolver = GroupProgress(Cluster(running.kafka), topics.RESOLVER_GROUP, [topics.RETURNED])
    await resolver.start()
    await _take_all(running, resolver)
    causes = [soon() for _ in range(25)]
    await running.traffic.say(*causes)
    held = HeldBack(running.directory / "held", running.kafka, running.dsn)
    await held.start()
    for there in (10, 20):
        async with asyncio.timeout(30):
            while await held.metric("postrider_returned_waiting") < 10:  # it has looked, and found no room
                await asyncio.sleep(0.02)
        await until(lambda there=there: len(running.traffic.about(*causes)) >= there, "the returned")
        assert len(running.traffic.about(*causes)) == there
        await running.traffic.say(urgent := soon(priority=Priority.HIGH))
        await back(running, urgent)
        assert len(running.traffic.about(*causes)) == there
        await _take_all(running, resolver)
    await back(running, *causes)
    assert await held.metric("postrider_return_delay_seconds_count") >= len(causes), "one for each batch that left"
    await held.stop()
    await resolver.stop()


async def test_it_is_not_ready_while_nobody_says_how_much_waits_before_the_resolver(running: Ground) -> None:
    assert running.broker.pid is not None
    os.kill(running.broker.pid, signal.SIGSTOP)
    try:
        await until_shown(running, lambda missing: "resolver's progress" in missing)
    finally:
        os.kill(running.broker.pid, signal.SIGCONT)
    await until_shown(running, lambda missing: not missing)
    await running.traffic.say(cause := soon())
    await back(running, cause)


async def until_shown(ground: Ground, condition: Callable[[dict[str, str]], bool]) -> None:
    """Wait until the readiness check shows as missing what fulfils the condition."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"http://127.0.0.1:{ground.program.port}/health/ready") as response:
                if condition((await response.json()).get("missing", {})):
                    return
            await asyncio.sleep(0.05)


async def test_lost_connections_to_postgres_are_made_again(running: Ground) -> None:
    connection = await asyncpg.connect(running.dsn)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'scheduler' AND datname = current_database()"
    )
    await connection.close()
    await running.traffic.say(cause := soon())
    await back(running, cause)


async def test_set_back_to_the_beginning_it_returns_nothing_again(running: Ground) -> None:
    gone, cancelled = [soon(priority=priority) for priority in Priority], soon(3600)
    await running.traffic.say(*gone, cancelled, command(cancelled.subject))
    await back(running, *gone)
    assert await running.program.stop() == 0
    returned = [r.value for r in running.traffic.records if r.topic in RETURNED]
    for group in ("scheduler", "scheduler.high"):
        await running.traffic.set_back(group, CONSUMED)
    await running.program.start()
    last = [soon(priority=priority) for priority in Priority]
    await running.traffic.say(*last)
    await back(running, *last)
    again = [r.value for r in running.traffic.records if r.topic in RETURNED]
    assert len(again) == len(returned) + len(last)
    statuses = [r.value for r in running.traffic.records if r.topic == topics.STATUS.name]
    assert len(statuses) > len(set(statuses)), "what was cancelled is said again"
    assert len({e.data.status for _, e in running.traffic.about(cancelled)}) == 1


async def _take_all(ground: Ground, resolver: GroupProgress) -> None:
    """As the resolver, have taken all that was returned."""
    await commit(ground.kafka, topics.RESOLVER_GROUP, await resolver.ends())
    assert await resolver.behind(await resolver.ends()) == 0


async def _known(ground: Ground, cause: MessageEvent[SmsDeferred]) -> None:
    """Wait until a deferral is stored."""
    connection = await asyncpg.connect(ground.dsn)
    try:
        stored = "SELECT count(*) FROM scheduler.entries WHERE message_id = $1"
        await until(lambda: connection.fetchval(stored, cause.subject), "the deferral to be stored")
    finally:
        await connection.close()


async def _left(ground: Ground) -> int:
    connection = await asyncpg.connect(ground.dsn)
    try:
        for _ in range(500):
            left: int = await connection.fetchval(
                "SELECT count(*) FROM scheduler.entries WHERE settled_at IS NULL AND due_at <= now()"
            )
            if left == 0:
                break
            await asyncio.sleep(0.02)
        return left
    finally:
        await connection.close()
