"""`scheduledAt` on POST /sms."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.services.api_gateway.fakes import Gateway
from tests.services.api_gateway.raw_client import Client, post, texts
from tests.waiting import until


def body(scheduled_at: Any, **more: Any) -> dict[str, Any]:
    return {"message": "Hello", "clientId": "17", "scheduledAt": scheduled_at, **more}


def ahead(**by: float) -> str:
    return (datetime.now(UTC) + timedelta(**by)).isoformat()


async def test_it_is_accepted_and_valid_from_its_time_on(gateway: Gateway) -> None:
    local = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0, tzinfo=None)
    answer = await gateway.send(body(f"{local.isoformat()}.5+03:00", validitySeconds=600))
    assert (answer.status, answer.body["status"]) == (202, "accepted")
    (event,) = gateway.publisher.events
    message = event.data.message
    assert message.scheduled_at == local.replace(microsecond=500_000, tzinfo=UTC) - timedelta(hours=3)
    assert message.scheduled_at.utcoffset() == timedelta(0)
    assert message.valid_until - message.scheduled_at == timedelta(minutes=10)
    assert event.data.leg.leg_at == message.accepted_at


async def test_a_year_ahead_is_taken(gateway: Gateway) -> None:
    assert (await gateway.send(body(ahead(days=366, seconds=-5)))).status == 202


@pytest.mark.parametrize(
    "scheduled_at",
    [
        lambda: ahead(seconds=-1),
        lambda: ahead(days=367),
        lambda: ahead(days=1)[:-6],  # no zone
        lambda: ahead(days=1).replace("T", " "),
        lambda: ahead(days=1)[:10],
        lambda: "2027-02-30T08:00:00Z",
        lambda: "2027-02-28T24:00:01Z",
        lambda: "0001-01-01T00:00:00+14:00",
        lambda: "9999-12-31T23:59:59-14:00",
        lambda: 1_900_000_000,
        lambda: "1900000000",
        lambda: "tomorrow",
        lambda: "",
        lambda: True,
    ],
)
async def test_any_other_time_is_refused_by_name(gateway: Gateway, scheduled_at: Any) -> None:
    given = scheduled_at()
    answer = await gateway.send(body(given))
    assert answer.status == 400
    assert [e["field"] for e in answer.body["errors"]] == ["scheduledAt"]
    if isinstance(given, str) and given:
        assert given not in str(answer.body)
    assert gateway.publisher.records == []


async def test_of_those_that_come_together_only_who_is_late_is_refused(gateway: Gateway) -> None:
    client = await Client.connect(gateway)
    times = (ahead(seconds=-1), None, ahead(seconds=-1), ahead(days=1))
    client.send(b"".join(post(f"{n}", b"Idempotency-Key: k%d\r\n" % n, scheduledAt=at) for n, at in enumerate(times)))
    answers = [await client.answer() for _ in times]
    assert [status for status, _, _ in answers] == [400, 202, 400, 202]
    assert texts(gateway) == ["1", "3"]
    assert [json.loads(answers[n][2])["id"] for n in (1, 3)] == [str(e.subject) for e in gateway.publisher.events]
    await until(lambda: len(gateway.ledger.marked) > 1)
    assert gateway.ledger.marked == ["demo/all/k1", "demo/all/k3"]
    client.close()


async def test_whether_who_is_late_repeats_something_is_not_known_without_postgres(gateway: Gateway) -> None:
    gateway.ledger.error = ConnectionRefusedError()
    assert (await gateway.send(body(ahead(seconds=-1)), idempotency_key="a")).status == 503
    assert (await gateway.send(body(ahead(seconds=-1)))).status == 400


async def test_none_is_now(gateway: Gateway) -> None:
    assert (await gateway.send(body(None))).status == 202
    assert gateway.publisher.events[0].data.message.scheduled_at is None


async def test_a_repeat_is_answered_also_after_its_time(gateway: Gateway) -> None:
    soon = body(ahead(seconds=0.3))
    first = await gateway.send(soon, idempotency_key="a")
    assert first.status == 202
    async with asyncio.timeout(5):
        while not gateway.ledger.marked or datetime.now(UTC).isoformat() < soon["scheduledAt"]:
            await asyncio.sleep(0.01)
    again, other, fresh = await asyncio.gather(
        gateway.send(soon, idempotency_key="a"),
        gateway.send({**soon, "message": "Other"}, idempotency_key="a"),
        gateway.send(soon, idempotency_key="b"),
    )
    assert (again.status, again.body) == (202, first.body)
    assert (other.status, fresh.status) in ((422, 400), (409, 400))
    assert list(gateway.ledger.rows) == ["demo/all/a"]
    assert len(gateway.publisher.records) == 1
