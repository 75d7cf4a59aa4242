"""Bad input at the door of the running system, and in its topics: a clear answer or a dead letter, and everyone stays well.

What the API refuses by its form is tested with the API gateway alone.
"""

import json
from collections import defaultdict
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from deploy.local.stack import Stack
from deploy.local.supervisor import missing
from libs.contracts import topics
from libs.contracts.events import Priority
from tests.end_to_end.client import Api
from tests.end_to_end.conftest import READER_KEY, STRANGER_KEY
from tests.waiting import until

DISPATCH, DISPATCH_HIGH = (topics.dispatch("demo", priority) for priority in (Priority.NORMAL, Priority.HIGH))
CONSUMERS = {
    topics.REQUESTED: {"resolver", "projection"},
    topics.REQUESTED_HIGH: {"resolver.high", "projection"},
    topics.RETURNED: {"resolver", "projection"},
    topics.RETURNED_HIGH: {"resolver.high", "projection"},
    topics.STATUS: {"receipts", "projection"},
    topics.DEFERRED: {"scheduler", "projection"},
    topics.DEFERRED_HIGH: {"scheduler.high", "projection"},
    topics.COMMANDS: {"dispatchers.marks", "resolver.commands", "scheduler", "projection"},
    topics.RECEIPTS: {"receipts"},
    topics.INBOUND: {"inbound"},
    topics.CONTACT_CHANGED: {"resolver.contacts"},
    DISPATCH_HIGH: {"dispatcher.demo.high", "projection"},
    DISPATCH: {"dispatcher.demo", "projection"},
}
POISON = {
    "bytes": b"\xff\x00 no JSON",
    "another shape": json.dumps({"specversion": "1.0", "id": "1", "type": "nobody.knows", "data": {}}).encode(),
    "nothing": None,
}


async def test_a_message_to_an_unknown_client_is_accepted_and_ends_rejected_with_the_reason(api: Api) -> None:
    message_id = await api.send(clientId="nobody", message="Hello", tags=["unknown-client"])
    await api.ended("unknown-client", 1)
    sms = await api.read(message_id)
    assert sms["status"] == "rejected"
    assert sms["reason"]["code"] == "unknown_person"
    assert [t["status"] for t in sms["history"]] == ["accepted", "rejected"]
    assert sms["history"][-1]["reason"] == sms["reason"]


async def test_another_tenants_people_and_messages_are_not_there(stack: Stack, api: Api) -> None:
    await api.put_client("shy", "+254733300001")
    message_id = await api.send(clientId="shy", message="Mine alone", tags=["foreign"])
    await api.ended("foreign", 1)
    async with Api(stack.url, STRANGER_KEY) as stranger:
        for path in (f"/sms/{message_id}", "/clients/shy"):
            status, problem = await stranger.call("GET", path)
            assert (status, problem["status"]) == (404, 404)
            assert (await api.call("GET", path))[0] == 200
        assert await stranger.list(tag="foreign") == []
        theirs = await stranger.send(clientId="shy", message="To whom?", tags=["foreign"])
        assert (await stranger.ended("foreign", 1))[theirs]["status"] == "rejected"
    assert (await api.call("GET", f"/sms/{theirs}"))[0] == 404


async def test_without_a_key_or_its_scope_nothing_is_done(stack: Stack, api: Api) -> None:
    async with Api(stack.url, None) as nobody, Api(stack.url, READER_KEY) as reader:
        for caller, expected in ((nobody, 401), (reader, 403)):
            message = {"clientId": "shy", "message": "Hello", "tags": ["not-allowed"]}
            status, problem = await caller.call("POST", "/sms", message)
            assert (status, problem["status"]) == (expected, expected)
            assert (await caller.call("PUT", "/clients/forged", {"phone": "+254733300002"}))[0] == expected
        assert await reader.list(tag="not-allowed") == []
    assert (await api.call("GET", "/clients/forged"))[0] == 404


@pytest.fixture(scope="module")
async def dead_letters(stack: Stack) -> AsyncIterator[AIOKafkaConsumer]:
    """Reads what comes to the dead letters of all topics from now on."""
    consumer = AIOKafkaConsumer(
        *(topic.dead_letter for topic in CONSUMERS), bootstrap_servers=stack.kafka, auto_offset_reset="latest"
    )
    await consumer.start()
    for partition in consumer.assignment():
        await consumer.position(partition)
    yield consumer
    await consumer.stop()


def test_every_topic_is_poisoned_below() -> None:
    assert set(CONSUMERS) == {*topics.FIXED_TOPICS, DISPATCH, DISPATCH_HIGH}


@pytest.mark.parametrize("kind", POISON)
async def test_poison_on_each_topic_becomes_a_dead_letter_and_harms_nobody(
    stack: Stack, api: Api, dead_letters: AIOKafkaConsumer, kind: str
) -> None:
    pids = [process.pid for process in stack.processes]
    poison = POISON[kind]
    places = await _publish_everywhere(stack.kafka, poison)

    found: dict[str, set[str]] = defaultdict(set)
    expected = {topic.dead_letter: groups for topic, groups in CONSUMERS.items() if groups}

    async def all_found() -> bool:
        for records in (await dead_letters.getmany(timeout_ms=100)).values():
            for record in records:
                headers = dict(record.headers)
                topic = headers["dead-letter-topic"].decode()
                assert (record.topic, record.key, record.value) == (f"{topic}.dead-letter", b"poison", poison)
                assert int(headers["dead-letter-offset"]) == places[topic]
                assert headers["dead-letter-reason"] and headers["dead-letter-words"]
                found[record.topic].add(headers["dead-letter-group"].decode())
        return found == expected

    await until(all_found, f"a dead letter for each consumer: {expected}", within=30)
    assert [await missing(process.spec.ready_url) for process in stack.processes] == [None] * len(pids)
    await api.put_client("unharmed", "+254733300003")
    tag = f"after-{kind.replace(' ', '-')}"
    for priority in Priority:
        await api.send(clientId="unharmed", message="Still here", tags=[tag], priority=priority.value)
    assert {sms["status"] for sms in (await api.ended(tag, 2)).values()} == {"delivered"}
    assert [process.pid for process in stack.processes] == pids, "a service died of it"


async def test_a_huge_body_and_broken_json_are_refused_over_a_real_connection(stack: Stack, api: Api) -> None:
    headers = {"Authorization": f"Bearer {stack.api_key}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(stack.url, headers=headers) as session:
        for body, expected in ((b"x" * 5_000_000, 413), (b'{"clientId": "1", "message": "', 400)):
            async with session.post("/sms", data=body) as response:
                assert (response.status, response.content_type) == (expected, "application/problem+json")
    assert (await api.call("GET", "/sms?limit=1"))[0] == 200


async def _publish_everywhere(bootstrap_servers: str, poison: bytes | None) -> dict[str, int]:
    """The offset of the poison in each topic."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers)
    await producer.start()
    try:
        stored = [await producer.send_and_wait(topic.name, poison, key=b"poison") for topic in CONSUMERS]
    finally:
        await producer.stop()
    return {place.topic: place.offset for place in stored}
