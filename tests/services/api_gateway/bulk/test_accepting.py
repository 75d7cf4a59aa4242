"""POST /sms/bulk over HTTP, with stand-ins for Kafka and Postgres."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from libs.bus.errors import PublishFailed
from libs.contracts.http.answers import Bulk
from libs.contracts.message_ids import time_of
from services.api_gateway.bulk.accepting import AT_ONCE, MAX_WAITING
from services.api_gateway.bulk.batch import CHUNK, CHUNKS_PER_SLICE
from tests.services.api_gateway.fakes import OTHER_TENANT_KEY, SEND_KEY, SLOW_KEY, STEADY_KEY, Answer, Gateway
from tests.waiting import until


def messages(count: int) -> list[dict[str, Any]]:
    return [{"message": f'n "{n}" %s', "clientId": str(n % 7)} for n in range(count)]


async def send_bulk(gateway: Gateway, items: Any, idempotency_key: str | None = None, **more: Any) -> Answer:
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key is not None else {}
    return await gateway.ask("POST", "/sms/bulk", json={"messages": items}, headers=headers, **more)


async def test_every_item_is_answered_in_order_and_published_under_its_person(gateway: Gateway) -> None:
    count = CHUNK + 3
    answer = await send_bulk(gateway, messages(count), key=SEND_KEY)
    assert answer.status == 202
    assert Bulk.model_validate(answer.body).model_dump(mode="json", by_alias=True) == answer.body
    batch_id = answer.body["batchId"]
    assert answer.headers["Location"] == answer.body["location"] == f"/batches/{batch_id}"
    assert (answer.body["accepted"], answer.body["rejected"]) == (count, 0)
    assert [item["index"] for item in answer.body["items"]] == list(range(count))
    first = answer.body["items"][0]["number"]
    assert [item["number"] for item in answer.body["items"]] == list(range(first, first + count))
    assert {item["status"] for item in answer.body["items"]} == {"accepted"}
    published = {
        str(e.subject): (r, e) for r, e in zip(gateway.publisher.records, gateway.publisher.events, strict=True)
    }
    assert len(published) == count
    for item, sent in zip(answer.body["items"], messages(count), strict=True):
        record, event = published[item["id"]]
        message = event.data.message
        assert (message.text, message.number) == (sent["message"], item["number"])
        assert (message.batch_id, message.batch_size) == (UUID(batch_id), count)
        assert event.time == message.accepted_at == event.data.leg.leg_at == time_of(UUID(batch_id))
        assert message.valid_until - message.accepted_at == timedelta(hours=48)
        assert record.key == f"demo/client/{sent['clientId']}".encode()
        assert event.data.requested_by == "sender"
    assert len({event.id for _, event in published.values()}) == count


@pytest.mark.parametrize("key", [None, "b"])
async def test_no_number_is_given_twice(gateway: Gateway, key: str | None) -> None:
    answers = [await send_bulk(gateway, messages(3), key and f"{key}{n}") for n in range(2)]
    numbers = [item["number"] for answer in answers for item in answer.body["items"]]
    assert len(set(numbers)) == len(numbers) == 6


async def test_a_bad_item_fails_alone_and_says_which_field_and_why(gateway: Gateway) -> None:
    soon, past = (datetime.now(UTC) + timedelta(days=d) for d in (1, -1))
    items: list[Any] = [
        {"message": "good", "clientId": "1"},
        {"message": "", "clientId": "1"},
        {"message": "two", "clientId": "1", "staffId": "2"},
        {"message": "good", "staffId": "2", "priority": "high", "scheduledAt": soon.isoformat()},
        {"message": "late", "clientId": "1", "scheduledAt": past.isoformat()},
        {"message": "я" * 661, "clientId": "1"},
        {"message": "a", "clientId": "1", "customData": {"x": "y" * 70_000}},
        {"message": "a", "clientId": "1", "mesage": "secret"},
        "no object",
        None,
        {"message": "\r\n ", "clientId": "1"},
    ]
    answer = await send_bulk(gateway, items)
    assert (answer.status, answer.body["accepted"], answer.body["rejected"]) == (202, 2, 9)
    Bulk.model_validate(answer.body)
    wrong = {item["index"]: {e["field"] for e in item["errors"]} for item in answer.body["items"] if "errors" in item}
    assert wrong == {
        1: {"message"}, 2: {"body"}, 4: {"scheduledAt"}, 5: {"message"}, 6: {"body"}, 7: {"mesage"}, 8: {"body"}, 9: {"body"},
        10: {"message"},
    }  # fmt: skip
    assert "secret" not in json.dumps(answer.body)
    assert sorted(e.data.message.recipient.id for e in gateway.publisher.events) == ["1", "2"]
    assert {e.data.message.batch_size for e in gateway.publisher.events} == {2}


async def test_without_one_good_item_it_is_400_with_the_items_errors(gateway: Gateway) -> None:
    bad = [{"message": "a"}] * 30
    answer = await send_bulk(gateway, bad, idempotency_key="b")
    assert answer.status == 400
    assert len(answer.body["errors"]) == 20
    assert answer.body["errors"][3]["field"] == "messages.3.body"
    assert gateway.publisher.records == []
    assert (await send_bulk(gateway, messages(1), idempotency_key="b")).status == 202  # the key is free


async def test_a_large_batch_is_taken_and_a_huge_one_refused(gateway: Gateway) -> None:
    answer = await send_bulk(gateway, messages(10_000))
    assert (answer.status, answer.body["accepted"]) == (202, 10_000)
    huge = b'{"messages": [' + b" " * (16 * 1024 * 1024) + b"]}"
    refused = await gateway.ask("POST", "/sms/bulk", data=huge, headers={"Content-Type": "application/json"})
    assert refused.status == 413
    assert "16777216" in refused.body["detail"]


async def test_it_needs_the_scope_to_send(gateway: Gateway) -> None:
    assert (await send_bulk(gateway, messages(1), key=None)).status == 401
    assert (await gateway.ask("GET", "/sms/bulk")).status == 405


async def test_it_costs_as_many_requests_as_it_has_messages(gateway: Gateway) -> None:
    assert (await send_bulk(gateway, messages(30), key=SLOW_KEY)).status == 202
    for answer in (await send_bulk(gateway, messages(1), key=SLOW_KEY), await gateway.send(key=SLOW_KEY)):
        assert answer.status == 429
        assert 200 < int(answer.headers["Retry-After"]) <= 300  # at one in ten seconds, less what the test took


@pytest.mark.parametrize("refusal", [400, 503])
async def test_a_call_of_which_nothing_comes_costs_one_request(gateway: Gateway, refusal: int) -> None:
    if refusal == 503:
        gateway.publisher.error = PublishFailed("away")
    items = messages(500) if refusal == 503 else [{"message": "a"}] * 500
    for key in (STEADY_KEY, SLOW_KEY):
        assert (await send_bulk(gateway, items, key=key)).status == refusal
    gateway.publisher.error = None
    answer = await gateway.send(key=SLOW_KEY)
    assert (answer.status, int(answer.headers["Retry-After"]) <= 10) == (429, True)
    assert (await send_bulk(gateway, messages(500), key=STEADY_KEY)).status == 202
    assert (await gateway.send(key=STEADY_KEY)).status == 429


async def test_a_repeat_gets_the_same_answer_and_publishes_nothing(gateway: Gateway) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    items = [*messages(3), {"message": "a"}, {"message": "soon", "clientId": "1", "scheduledAt": soon}]
    first = await send_bulk(gateway, items, idempotency_key="b")
    assert first.body["accepted"] == 4
    again = await send_bulk(gateway, items, idempotency_key="b")
    assert (again.status, again.body) == (202, first.body)
    await until(lambda: bool(gateway.ledger.marked))
    await until(lambda: datetime.now(UTC).isoformat() > soon)  # what it was scheduled for has passed
    later = await send_bulk(gateway, items, idempotency_key="b")
    assert (later.status, later.body) == (202, first.body)
    assert len(gateway.publisher.records) == 4


async def test_a_key_is_bound_to_its_body_and_its_api_key(gateway: Gateway) -> None:
    first = await send_bulk(gateway, messages(2), idempotency_key="b")
    assert (await send_bulk(gateway, messages(3), idempotency_key="b")).status == 422
    await until(lambda: bool(gateway.ledger.marked))
    assert (await send_bulk(gateway, messages(3), idempotency_key="b")).status == 422
    assert (await gateway.send(idempotency_key="b")).status == 422
    other = await send_bulk(gateway, messages(2), idempotency_key="b", key=OTHER_TENANT_KEY)
    assert other.status == 202
    assert other.body["batchId"] != first.body["batchId"]


async def test_while_it_is_under_way_its_key_is_409(gateway: Gateway) -> None:
    gateway.publisher.gate.clear()
    first = asyncio.create_task(send_bulk(gateway, messages(2), idempotency_key="b"))
    await until(lambda: gateway.publisher.calls > 0)
    answer = await send_bulk(gateway, messages(2), idempotency_key="b")
    assert (answer.status, "Retry-After" in answer.headers) == (409, True)
    gateway.publisher.gate.set()
    assert (await first).status == 202


async def test_after_a_failure_a_repeat_publishes_the_very_same_events(gateway: Gateway) -> None:
    sent = messages(CHUNK + 5)
    gateway.publisher.error, gateway.publisher.let_through = PublishFailed("away"), 1
    failed = await send_bulk(gateway, sent, idempotency_key="b")
    assert failed.status == 503
    assert "Retry-After" in failed.headers
    gateway.publisher.error = None
    answer = await send_bulk(gateway, sent, idempotency_key="b")
    assert answer.status == 202
    begun, once = gateway.publisher.records[:CHUNK], gateway.publisher.records[CHUNK:]
    assert begun == once[:CHUNK]
    await until(lambda: bool(gateway.ledger.marked))
    gateway.ledger.marked.clear()  # as if it had died before it was marked, and the claim had run out
    gateway.ledger.claims_last = False
    again = await send_bulk(gateway, sent, idempotency_key="b")
    assert again.body == answer.body
    assert gateway.publisher.records == begun + once + once


async def test_its_key_is_kept_until_none_of_it_is_under_way(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    async def publish(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise PublishFailed("away")
        if calls > CHUNKS_PER_SLICE:
            await gateway.publisher.gate.wait()

    monkeypatch.setattr(gateway.publisher, "publish", publish)
    gateway.publisher.gate.clear()
    call = asyncio.create_task(send_bulk(gateway, messages(CHUNKS_PER_SLICE * CHUNK + 1), idempotency_key="b"))
    await until(lambda: calls == CHUNKS_PER_SLICE + 1)
    await asyncio.sleep(0.05)
    assert gateway.ledger.released == []
    gateway.publisher.gate.set()
    assert (await call).status == 503
    assert gateway.ledger.released == ["demo/all/b"]


async def test_without_kafka_and_then_without_postgres_too_it_is_503(gateway: Gateway) -> None:
    gateway.publisher.gate.clear()
    waiting = asyncio.create_task(send_bulk(gateway, messages(1), idempotency_key="b"))
    await until(lambda: gateway.publisher.calls == 1)
    gateway.publisher.error, gateway.ledger.error = PublishFailed("away"), ConnectionRefusedError()
    gateway.publisher.gate.set()
    assert (await waiting).status == 503


async def test_without_postgres_it_is_503(gateway: Gateway) -> None:
    gateway.ledger.error = ConnectionRefusedError()
    for key in ("b", None):
        answer = await send_bulk(gateway, messages(1), idempotency_key=key)
        assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    gateway.ledger.error = None
    assert (await send_bulk(gateway, messages(1), idempotency_key="b")).status == 202


async def test_others_are_served_while_a_large_batch_is_read(gateway: Gateway) -> None:
    gateway.publisher.gate.clear()
    waiting = asyncio.create_task(send_bulk(gateway, messages(10_000)))
    await until(lambda: gateway.publisher.calls > 0)
    assert (await gateway.ask("GET", "/openapi.json")).status == 200
    gateway.publisher.gate.set()
    assert (await waiting).status == 202


@pytest.mark.parametrize("keyed", [False, True])
async def test_more_calls_than_can_wait_are_503_before_they_are_read(gateway: Gateway, keyed: bool) -> None:
    gateway.publisher.gate.clear()
    keys = [f"b{n}" if keyed else None for n in range(AT_ONCE + MAX_WAITING + 1)]
    calls = [asyncio.create_task(send_bulk(gateway, messages(1), key)) for key in keys]
    done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    (refused,) = [task.result() for task in done]
    assert (refused.status, "Retry-After" in refused.headers) == (503, True)
    assert refused.body["detail"] == "too many bulk calls wait already; nothing was accepted"
    assert (await send_bulk(gateway, "no list")).status == 503
    assert gateway.publisher.calls == AT_ONCE
    gateway.publisher.gate.set()
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [202] * (AT_ONCE + MAX_WAITING)
    assert (await send_bulk(gateway, messages(1))).status == 202


async def test_calls_that_are_refused_take_nobodys_place(gateway: Gateway) -> None:
    for _ in range(AT_ONCE + MAX_WAITING):
        assert (await send_bulk(gateway, "no list")).status == 400
    assert (await send_bulk(gateway, messages(1))).status == 202


async def test_each_message_is_counted_when_it_is_accepted(gateway: Gateway) -> None:
    def counted() -> list[float]:
        name = "postrider_messages_accepted_total"
        return [REGISTRY.get_sample_value(name, {"priority": priority}) or 0.0 for priority in ("normal", "high")]

    before = counted()
    items = [*messages(CHUNK), {"message": "a"}, {"message": "b", "clientId": "1", "priority": "high"}]
    for _ in range(2):
        assert (await send_bulk(gateway, items, idempotency_key="b")).status == 202
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [CHUNK, 1]
