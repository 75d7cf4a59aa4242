"""Messages that wait, through the whole system: what is cancelled is not sent, what is scheduled is sent when it is due."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import asyncpg

from deploy.local.stack import Stack
from tests.end_to_end.client import Api, Carrier
from tests.end_to_end.conftest import Reconfigure
from tests.services.simulated_carrier.texts import join_texts
from tests.waiting import until

CLIENTS = {f"waiting-{n}": f"+2547222{n:05}" for n in range(20)}
RACES = 1000
MOVING = 200
TEMPORARY = 0x45  # ESME_RSUBMITFAIL, SMPP 3.4 §5.1.3


async def cancel(api: Api, message_id: str) -> None:
    async def answered() -> tuple[int, str] | None:
        status, answer = await api.call("DELETE", f"/sms/{message_id}")
        return None if status == 503 else (status, answer["status"])  # 503: ask again

    assert await until(answered, "an answer to a cancellation", within=90) == (202, "cancelling")


async def test_what_is_cancelled_while_it_is_claimed_is_cancelled_or_sent_and_never_both(
    api: Api, carrier: Carrier, reconfigure: Reconfigure
) -> None:
    await api.put_clients(CLIENTS)
    await reconfigure(2, segmentsPerSecond=40)
    before = carrier.last()
    sent = await api.send_all(
        {"clientId": f"waiting-{n % len(CLIENTS)}", "message": f"race {n}", "tags": ["race"]} for n in range(RACES)
    )
    # In the order of sending, a machine on which cancelling is the slower one would never catch up with it.
    await asyncio.gather(*(cancel(api, message_id) for message_id in random.sample(sent, len(sent))))
    await reconfigure(1)
    ended = await api.ended("race", RACES, within=90)

    seen = Counter(text.text for text in join_texts(carrier.entries(before)))
    said = {ended[message_id]["status"] for message_id in sent}
    assert said == {"cancelled", "delivered"}, "the race was run both ways"
    for n, message_id in enumerate(sent):
        assert seen[f"race {n}"] == (1 if ended[message_id]["status"] == "delivered" else 0)
    late = await api.read(next(m for m in sent if ended[m]["status"] == "delivered"))
    assert late["reason"]["code"] == "cancel-too-late" and late["cancelAskedAt"]


async def test_what_is_scheduled_waits_and_goes_to_the_number_of_its_time(api: Api, carrier: Carrier) -> None:
    await api.put_clients(CLIENTS)
    due, far = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (12, 3600))
    scheduled, cancelled = await api.send_all(
        {"clientId": client, "message": f"later {client}", "tags": ["later"], "scheduledAt": at.isoformat()}
        for client, at in (("waiting-1", due), ("waiting-2", far))
    )

    async def both_wait() -> bool:
        return all(sms["status"] == "scheduled" for sms in await api.read_all((scheduled, cancelled)))

    await until(both_wait, "both are scheduled", within=10)
    await api.put_client("waiting-1", "+254722999999")
    await cancel(api, cancelled)

    async def over() -> bool:
        statuses = [sms["status"] for sms in await api.read_all((scheduled, cancelled))]
        return statuses == ["delivered", "cancelled"]

    await until(over, "one is delivered, one cancelled", within=30)
    sms = await api.read(scheduled)
    assert sms["phone"] == "+254722999999" and sms["leg"] == 2
    assert due <= datetime.fromisoformat(sms["submittedAt"])
    assert [t["status"] for t in sms["history"]][:2] == ["accepted", "scheduled"]
    assert "later waiting-2" not in {text.text for text in join_texts(carrier.entries())}


async def test_what_is_queued_when_the_number_changes_comes_back_and_goes_to_the_new_one(
    api: Api, carrier: Carrier, reconfigure: Reconfigure, stack: Stack
) -> None:
    old, new = "+254722800001", "+254722800002"
    await api.put_clients({"moves": old})
    await reconfigure(1, segmentsPerSecond=1)
    before = carrier.last()
    sent = await api.send_all(
        {"clientId": "moves", "message": f"moving {n}", "tags": ["moving"]} for n in range(MOVING)
    )

    async def all_queued() -> bool:
        shown = await api.read_all(sent)
        return all(sms["phone"] == old for sms in shown)

    await until(all_queued, "all are given the old number", within=60)
    await api.put_client("moves", new)

    async def many_moved() -> bool:
        shown = await api.read_all(sent)
        return sum(sms["leg"] == 2 and sms["phone"] == new for sms in shown) > MOVING / 4

    await until(many_moved, "many come back and are given the new number", within=60)
    await reconfigure(1)
    ended = await api.ended("moving", MOVING, within=60)
    assert {sms["status"] for sms in ended.values()} == {"delivered"}
    gone_to = Counter(entry.destination for entry in carrier.entries(before) if entry.accepted)
    assert gone_to.total() == MOVING and gone_to[new.lstrip("+")] > MOVING / 4, gone_to

    connection = await asyncpg.connect(stack.postgres_dsn)
    try:
        looked_for = "SELECT NOT EXISTS (SELECT FROM resolver.changed_people)"
        await until(
            lambda: connection.fetchval(looked_for), "the last look, when all that was decided is known", within=30
        )
    finally:
        await connection.close()


async def test_what_is_refused_for_now_waits_for_another_leg(api: Api, carrier: Carrier) -> None:
    await api.put_clients(CLIENTS)
    await carrier.steer(refusals={"next": 1, "command_status": TEMPORARY})
    message_id = await api.send(clientId="waiting-3", message="busy")

    async def waits() -> bool:
        return (await api.read(message_id))["status"] == "scheduled"

    await until(waits, "it is deferred", within=20)
    sms = await api.read(message_id)
    assert sms["leg"] == 2 and sms["reason"]["code"] == "smpp.ESME_RSUBMITFAIL"
    deferred_at = next(t["at"] for t in sms["history"] if t["topic"] == "sms.deferred")
    wait = datetime.fromisoformat(sms["scheduledAt"]) - datetime.fromisoformat(deferred_at)
    assert 20 < wait.total_seconds() < 40
    await cancel(api, message_id)

    async def ended() -> bool:
        return (await api.read(message_id))["status"] == "cancelled"

    await until(ended, "it is cancelled while it waits", within=20)


async def test_high_priority_stays_high_when_it_is_refused_for_now_and_comes_back(
    api: Api, carrier: Carrier, stack: Stack
) -> None:
    await api.put_clients(CLIENTS)
    await carrier.steer(refusals={"next": 1, "command_status": TEMPORARY})
    message_id = await api.send(clientId="waiting-4", message="code 4711", priority="high", tags=["urgent"])
    connection = await asyncpg.connect(stack.postgres_dsn)
    hurried = "UPDATE scheduler.entries SET due_at = now() WHERE message_id = $1"  # half a minute early

    async def is_due() -> bool:
        return await connection.execute(hurried, message_id) == "UPDATE 1"

    try:
        await until(is_due, "it is deferred", within=20)
    finally:
        await connection.close()

    async def delivered() -> bool:
        return (await api.read(message_id))["status"] == "delivered"

    await until(delivered, "it is delivered in its second leg", within=60)
    way = [t["topic"] for t in (await api.read(message_id))["history"] if t["topic"] != "sms.status"]
    dispatched = "sms.dispatch.demo.high"
    # In no order: the return has the time at which it would have been due.
    assert sorted(way) == ["sms.deferred.high", dispatched, dispatched, "sms.requested.high", "sms.returned.high"]
