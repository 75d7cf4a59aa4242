"""The resolver as a process, between a real Kafka and a real PostgreSQL: asked, poisoned, killed, started again, set back."""

import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy.local.kafka import SHORT_RUN, Kafka
from libs.bus.codec import encode
from libs.contracts import topics
from libs.contracts.events import Encoding, Leg, MessageEvent, PersonKind, Priority, SmsRequested
from libs.contracts.statuses import Status
from libs.contracts.topics import Topic
from services.resolver.main import MESSAGES
from tests.conftest import DatabaseFactory
from tests.services.resolver.builders import PHONE, TRACE, command, contact_changed, message, requested, returned
from tests.services.resolver.program import OUT, Program, Traffic
from tests.waiting import until

START = datetime.now(UTC)
OTHER_PHONE = "+254700000001"
READ_BY = {
    topics.REQUESTED_HIGH: "resolver.high",
    topics.RETURNED_HIGH: "resolver.high",
    topics.REQUESTED: "resolver",
    topics.RETURNED: "resolver",
    topics.COMMANDS: "resolver.commands",
    topics.CONTACT_CHANGED: "resolver.contacts",
}
_ids = count(1)


@dataclass
class Ground:
    program: Program
    traffic: Traffic
    dsn: str


@pytest.fixture(scope="module")
async def ground(server_directory: Path, postgres: DatabaseFactory, tmp_path_factory: Any) -> AsyncIterator[Ground]:
    """A broker of its own: the resolver's topics and groups have fixed names. It makes all that it reads and writes."""
    async with Kafka(server_directory / "kafka-resolver", java_options=SHORT_RUN) as broker:
        dsn = await postgres()
        program = Program(tmp_path_factory.mktemp("resolver"), broker.bootstrap_servers, dsn)
        await program.start()
        traffic = Traffic(broker.bootstrap_servers)
        await traffic.start()
        yield Ground(program, traffic, dsn)
        await program.stop()
        await traffic.stop()


def someone() -> str:
    return f"m{next(_ids)}"


def sms(person: str, text: str = "Hello", **given: Any) -> MessageEvent[SmsRequested]:
    return requested(message(person, text=text, accepted_at=datetime.now(UTC), **given))


async def test_a_request_right_after_a_put_goes_out_to_the_new_number(running: Ground):
    person = someone()
    for phone in ("0712 345 678", "0700 000 001"):
        status, _ = await running.program.http("PUT", f"clients/{person}", {"phone": phone, "name": "Jane Doe"})
        assert status in (200, 201)
        cause = sms(person, "ж" * 71, sender_id="CLINIC")
        await running.traffic.ask(cause)
        topic, event = await running.traffic.answer(cause)
    assert topic == "sms.dispatch.demo"
    assert (event.source, event.traceparent, event.time) == ("postrider/resolver", TRACE, event.data.decided_at)
    assert (event.data.message, event.data.leg) == (cause.data.message, cause.data.leg)
    assert (event.data.gateway, event.data.source_address) == ("demo", "CLINIC")
    assert (event.data.phone, event.data.person_name) == (OTHER_PHONE, "Jane Doe")
    assert (event.data.encoding, event.data.segments) == (Encoding.UCS2, 2)


async def test_high_priority_and_returned_messages_are_decided_too(running: Ground):
    person = someone()
    await running.program.http("PUT", f"staff/{person}", {"phone": PHONE})
    urgent = sms(person, kind=PersonKind.STAFF, priority=Priority.HIGH)
    await running.traffic.ask(urgent)
    assert (await running.traffic.answer(urgent))[0] == "sms.dispatch.demo.high"
    again = returned(urgent.data.message, urgent.subject, Leg(1, 2, datetime.now(UTC)))
    await running.traffic.ask(again)
    await until(lambda: len(running.traffic.about(urgent)) == 2, "the second leg")
    assert [(topic, e.data.leg.leg) for topic, e in running.traffic.about(urgent)] == [
        ("sms.dispatch.demo.high", 1),
        ("sms.dispatch.demo.high", 2),
    ]


async def test_a_scheduled_message_is_deferred_and_a_cancelled_one_ends(running: Ground):
    person = someone()
    await running.program.http("PUT", f"clients/{person}", {"phone": PHONE})
    due_at = datetime.now(UTC) + timedelta(hours=1)
    waiting, cancelled = sms(person, scheduled_at=due_at), sms(person, scheduled_at=due_at)
    await running.traffic.command(command(cancelled.subject))
    await _marked(running, cancelled)
    await running.traffic.ask(waiting, cancelled)
    topic, event = await running.traffic.answer(waiting)
    assert (topic, event.data.leg) == ("sms.deferred", Leg(1, 2, due_at))
    topic, event = await running.traffic.answer(cancelled)
    assert (topic, event.data.status) == ("sms.status", Status.CANCELLED)


async def _marked(ground: Ground, cause: MessageEvent[Any]) -> None:
    connection = await asyncpg.connect(ground.dsn)
    try:
        marked = "SELECT count(*) FROM resolver.marks WHERE message_id = $1"
        await until(lambda: connection.fetchval(marked, cause.subject), "the cancellation to be stored")
    finally:
        await connection.close()


async def test_contacts_come_from_upstream_and_older_news_changes_nothing(running: Ground):
    person, mark = someone(), someone()
    later = START + timedelta(seconds=5)
    await running.traffic.change(
        contact_changed(person, phone="0712345678", name="new", changed_at=later),
        contact_changed(person, phone="0700000001", name="old", changed_at=START),
    )
    await _known(running, mark)
    status, body = await running.program.http("GET", f"clients/{person}")
    assert (status, body["phone"], body["name"]) == (200, PHONE, "new")
    await running.traffic.change(
        contact_changed(person, changed_at=later + timedelta(seconds=1), deleted=True),
        contact_changed(person, changed_at=later),
    )
    await _known(running, someone())
    assert (await running.program.http("GET", f"clients/{person}"))[0] == 404


async def test_an_upstream_system_may_number_its_people_and_leave_out_what_cloudevents_has_as_optional(running: Ground):
    dead = len(running.traffic.dead(topics.CONTACT_CHANGED))
    event = json.loads(encode(contact_changed("502", phone="0712345678")))
    event["data"]["recipient"]["id"] = 502
    event["datacontenttype"] = "application/json; charset=utf-8"
    event["subject"] = None
    del event["time"]
    await running.traffic.raw(topics.CONTACT_CHANGED, json.dumps(event).encode())
    await _known(running, someone())
    status, body = await running.program.http("GET", "clients/502")
    assert (status, body["id"], body["phone"]) == (200, "502", PHONE)
    assert len(running.traffic.dead(topics.CONTACT_CHANGED)) == dead


async def _known(ground: Ground, mark: str) -> None:
    """Publish a change for each partition, and wait until they are stored: so is then all that was published before."""
    marks = [f"{mark}-{n}" for n in range(40)]
    await ground.traffic.change(*(contact_changed(each) for each in marks))
    connection = await asyncpg.connect(ground.dsn)
    try:
        stored = 0
        for _ in range(400):
            stored = await connection.fetchval("SELECT count(*) FROM resolver.contacts WHERE id = ANY($1)", marks)
            if stored == len(marks):
                return
            await connection.execute("SELECT pg_sleep(0.05)")
        raise AssertionError(f"only {stored} of {len(marks)} contact changes were stored")
    finally:
        await connection.close()


async def test_people_who_cannot_be_reached_end_their_messages_with_the_reason(running: Ground):
    deleted, no_number, invalid = someone(), someone(), someone()
    await running.traffic.change(
        contact_changed(deleted, deleted=True),
        contact_changed(no_number, phone=None),
        contact_changed(invalid, phone="0712"),
    )
    await _known(running, someone())
    causes = {
        "unknown_person": sms(someone()),
        "person_deleted": sms(deleted),
        "no_number": sms(no_number),
        "invalid_number": sms(invalid),
        "number_not_allowed": sms(someone(), kind=PersonKind.NUMBER),
    }
    late = requested(message(no_number, accepted_at=START - timedelta(hours=1), valid_for=timedelta(minutes=1)))
    await running.traffic.ask(*causes.values(), late)
    for code, cause in causes.items():
        topic, event = await running.traffic.answer(cause)
        assert (topic, event.data.status, event.data.reason.code) == ("sms.status", Status.REJECTED, code)
    _, expired = await running.traffic.answer(late)
    assert expired.data.status is Status.EXPIRED


@pytest.mark.parametrize("topic", [*MESSAGES, topics.COMMANDS, topics.CONTACT_CHANGED], ids=lambda topic: topic.name)
async def test_poison_goes_to_the_dead_letters_and_the_rest_goes_on(running: Ground, topic: Topic):
    before = len(running.traffic.dead(topic))
    poison = [b"\x00\xff", b"{", b"{}", b"[]", json.dumps({"type": "postrider.other.v1"}).encode()]
    await running.traffic.raw(topic, *poison)
    await until(lambda: len(running.traffic.dead(topic)) >= before + len(poison), "dead letters")
    letters = running.traffic.dead(topic)[before:]
    assert sorted(r.value for r in letters) == sorted(poison)
    assert all(dict(r.headers)["dead-letter-reason"] == b"undecodable" for r in letters)
    assert {dict(r.headers)["dead-letter-group"].decode() for r in letters} == {READ_BY[topic]}
    assert running.program.child is not None
    assert running.program.child.running
    await _known(running, someone())
    cause = sms(someone())
    await running.traffic.ask(cause)
    await running.traffic.answer(cause)


async def test_a_poisoned_message_that_can_be_named_has_it_in_its_history(running: Ground):
    cause = sms(someone())
    event = json.loads(encode(cause))
    event["data"]["message"]["text"] = 5
    await running.traffic.raw(topics.REQUESTED, json.dumps(event).encode())
    topic, told = await running.traffic.answer(cause)
    assert (topic, told.data.status, told.data.reason.code) == ("sms.status", Status.REJECTED, "poison")


async def test_a_person_that_postgres_cannot_store_is_a_dead_letter_and_not_the_end(running: Ground):
    person = someone()
    await running.program.http("PUT", f"clients/{person}", {"phone": PHONE})
    bad, good = sms("a\0b"), sms(person)
    await running.traffic.ask(bad, good)
    assert (await running.traffic.answer(good))[0] == "sms.dispatch.demo"
    assert (await running.traffic.answer(bad))[1].data.reason.code == "poison"


async def test_lost_connections_to_postgres_are_made_again(running: Ground):
    person = someone()
    await running.program.http("PUT", f"clients/{person}", {"phone": PHONE})
    connection = await asyncpg.connect(running.dsn)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'resolver' AND datname = current_database()"
    )
    await connection.close()
    cause = sms(person)
    await running.traffic.ask(cause)
    assert (await running.traffic.answer(cause))[0] == "sms.dispatch.demo"


async def test_set_back_to_the_beginning_it_says_again_what_it_said(running: Ground):
    known, gone = someone(), someone()
    for person in (known, gone):
        await running.program.http("PUT", f"clients/{person}", {"phone": PHONE, "name": "Before"})
    causes = [sms(known), sms(gone), sms(someone()), sms(known, priority=Priority.HIGH)]
    await running.traffic.ask(*causes)
    for cause in causes:
        await running.traffic.answer(cause)
    await running.program.http("PUT", f"clients/{known}", {"phone": OTHER_PHONE, "name": "After"})
    await running.program.http("DELETE", f"clients/{gone}")
    assert await running.program.stop() == 0
    said = Counter(_said(running))

    await running.traffic.set_back("resolver", MESSAGES)
    await running.traffic.set_back("resolver.high", MESSAGES)
    await running.traffic.set_back("resolver.contacts", [topics.CONTACT_CHANGED])
    await running.program.start()
    await until(lambda: all(Counter(_said(running))[each] > said[each] for each in said), "everything said again")
    assert set(_said(running)) == set(said)
    await _known(running, someone())
    status, body = await running.program.http("GET", f"clients/{known}")
    assert (status, body["phone"]) == (200, OTHER_PHONE)
    assert (await running.program.http("GET", f"clients/{gone}"))[0] == 404


def _said(ground: Ground) -> list[tuple[str, bytes, bytes]]:
    return [(r.topic, r.key, r.value) for topic in OUT for r in ground.traffic.of(topic)]


@pytest.mark.parametrize(
    ("point", "phone", "times"),
    [
        ("resolver.receive-decide", OTHER_PHONE, 1),
        ("resolver.decide-publish", PHONE, 1),
        ("resolver.publish-commit", PHONE, 2),
    ],
)
async def test_killed_at_any_point_it_goes_on_with_what_it_had_decided(
    running: Ground, point: str, phone: str, times: int
):
    person = someone()  # one, so that all lie in one partition and come in one batch
    await running.program.http("PUT", f"clients/{person}", {"phone": PHONE})
    assert await running.program.stop() == 0
    causes = [sms(person) for _ in range(20)]
    await running.traffic.ask(*causes)
    child = await running.program.start(crash_at=point, ready=False)
    await until(lambda: not child.running, "the crash")
    assert child.exit_code == -signal.SIGKILL
    connection = await asyncpg.connect(running.dsn)
    await connection.execute("UPDATE resolver.contacts SET phone = $1 WHERE id = $2", OTHER_PHONE, person)
    await connection.close()
    await running.program.start()
    last = sms(person)
    await running.traffic.ask(last)
    await running.traffic.answer(last)
    for cause in causes:
        events = [event for _, event in running.traffic.about(cause)]
        assert [event.data.phone for event in events] == [phone] * times
        assert len({encode(event) for event in events}) == 1
