"""POST /sms over HTTP, with stand-ins for Kafka and Postgres."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from libs.bus.errors import PublishFailed
from libs.contracts.events import Leg, PersonKind, Priority, SmsRequested, event_id
from libs.contracts.message_ids import time_of
from services.api_gateway import accepting, gatherer, known_keys
from tests.services.api_gateway.fakes import OTHER_TENANT_KEY, SEND_KEY, Gateway, running_gateway
from tests.services.api_gateway.raw_client import Client, post
from tests.waiting import until


async def test_the_answer_names_the_message_and_where_it_is(gateway: Gateway) -> None:
    answer = await gateway.send()
    assert answer.status == 202
    assert set(answer.body) == {"id", "number", "status", "location"}
    assert answer.body["status"] == "accepted"
    assert answer.headers["Location"] == answer.body["location"] == f"/sms/{answer.body['id']}"
    assert 0 < answer.body["number"] < 2**53
    assert UUID(answer.body["id"]).version == 7


async def test_a_small_request_becomes_an_event_with_the_defaults(gateway: Gateway) -> None:
    answer = await gateway.send({"message": "Hello", "clientId": 17}, key=SEND_KEY)
    (record,), (event,) = gateway.publisher.records, gateway.publisher.events
    assert (record.topic, record.key) == ("sms.requested", b"demo/client/17")
    assert (str(event.subject), event.type, event.source) == (
        answer.body["id"],
        SmsRequested.TYPE,
        "postrider/api_gateway",
    )
    assert event.id == event_id(SmsRequested.TYPE, event.subject, 1, 1)
    message = event.data.message
    assert event.time == message.accepted_at == time_of(event.subject)
    assert event.data.leg == Leg(1, 1, message.accepted_at)
    assert event.data.requested_by == "sender"
    assert (message.tenant, message.recipient.kind, message.recipient.id) == ("demo", PersonKind.CLIENT, "17")
    assert (message.text, message.number, message.priority) == ("Hello", answer.body["number"], Priority.NORMAL)
    assert message.valid_until - message.accepted_at == timedelta(hours=48)
    assert event.data.custom_data is None
    assert not message.allow_unknown_number


async def test_a_full_request_becomes_an_event_with_everything(gateway: Gateway) -> None:
    asked = {
        "message": "Привет 👋",
        "staffId": "nurse/4",
        "priority": "high",
        "senderId": "CLINIC",
        "tags": ["a", "b"],
        "customData": {"order": 1, "deep": [{"x": None}]},
        "validitySeconds": 600,
    }
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = await gateway.ask("POST", "/sms", json=asked, headers={"traceparent": trace})
    assert answer.status == 202
    (record,), (event,) = gateway.publisher.records, gateway.publisher.events
    assert (record.topic, record.key) == ("sms.requested.high", b"demo/staff/nurse/4")
    message = event.data.message
    assert (message.text, message.sender_id, message.tags) == ("Привет 👋", "CLINIC", ("a", "b"))
    assert message.valid_until - message.accepted_at == timedelta(minutes=10)
    assert event.data.custom_data == asked["customData"]
    assert event.traceparent is not None
    assert event.traceparent[:36] == trace[:36]


async def test_a_wrong_trace_context_starts_a_new_trace(gateway: Gateway) -> None:
    answer = await gateway.ask(
        "POST", "/sms", json={"message": "a", "clientId": "1"}, headers={"traceparent": "x" * 55}
    )
    assert answer.status == 202
    assert gateway.publisher.events[0].traceparent is not None
    assert "x" not in gateway.publisher.events[0].traceparent


@pytest.mark.parametrize("trace", [f"00-{'0' * 32}-{'b' * 16}-01", f"00-{'a' * 32}-{'0' * 16}-01"])
async def test_a_trace_context_of_zeros_is_no_trace(gateway: Gateway, trace: str) -> None:
    for _ in range(2):
        await gateway.ask("POST", "/sms", json={"message": "a", "clientId": "1"}, headers={"traceparent": trace})
    traces = {str(event.traceparent)[:36] for event in gateway.publisher.events}
    assert len(traces) == 2
    assert trace[:36] not in traces


async def test_the_longest_idempotency_key_is_taken(gateway: Gateway) -> None:
    assert (await gateway.send(idempotency_key="~ " + "x" * 253)).status == 202


async def test_the_longest_texts_are_taken_and_none_longer(gateway: Gateway) -> None:
    for text in ("x" * 1520, "€" * 760, "я" * 660, "👋" * 330):
        assert (await gateway.send({"message": text, "clientId": "1"})).status == 202, text[:1]
        assert (await gateway.send({"message": text + text[0], "clientId": "1"})).status == 400, text[:1]


async def test_requests_that_come_together_are_published_together(gateway: Gateway) -> None:
    gateway.publisher.gate.clear()
    first = asyncio.create_task(gateway.send())
    await until(lambda: gateway.publisher.calls == 1)
    others = [asyncio.create_task(gateway.send({"message": str(n), "clientId": str(n)})) for n in range(50)]
    await asyncio.sleep(0.1)
    assert gateway.publisher.calls == 1
    assert not any(task.done() for task in (first, *others))  # nothing is answered before Kafka has it
    gateway.publisher.gate.set()
    answers = await asyncio.gather(first, *others)
    assert {a.status for a in answers} == {202}
    assert len({a.body["id"] for a in answers}) == len({a.body["number"] for a in answers}) == 51
    assert gateway.publisher.calls < 10


async def test_what_kafka_does_not_acknowledge_is_503_and_not_ready(gateway: Gateway) -> None:
    gateway.publisher.error = PublishFailed("away")
    answer = await gateway.send()
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert gateway.kafka.missing() is not None
    gateway.publisher.error = None
    assert (await gateway.send()).status == 202
    assert gateway.kafka.missing() is None


async def test_the_same_key_and_body_get_the_same_answer_and_one_event(gateway: Gateway) -> None:
    first = await gateway.send(idempotency_key="a")
    again = await gateway.send(idempotency_key="a")
    assert (again.status, again.body) == (202, first.body)
    await until(lambda: bool(gateway.ledger.marked))  # from here on it is Postgres that knows
    later = await gateway.send(idempotency_key="a")
    assert (later.status, later.body) == (202, first.body)
    assert len(gateway.publisher.records) == 1


async def test_the_same_key_with_another_body_is_422(gateway: Gateway) -> None:
    await gateway.send(idempotency_key="a")
    other = {"message": "Other", "clientId": "17"}
    assert (await gateway.send(other, idempotency_key="a")).status == 422
    await until(lambda: bool(gateway.ledger.marked))
    answer = await gateway.send(other, idempotency_key="a")
    assert answer.status == 422
    assert answer.body["errors"][0]["field"] == "Idempotency-Key"
    assert len(gateway.publisher.records) == 1


async def test_a_key_belongs_to_its_api_key(gateway: Gateway) -> None:
    answers = [await gateway.send(idempotency_key="a", key=key) for key in (SEND_KEY, OTHER_TENANT_KEY)]
    answers.append(await gateway.send(idempotency_key="a"))
    assert {a.status for a in answers} == {202}
    assert len({a.body["id"] for a in answers}) == 3


async def test_a_key_in_progress_is_409_and_then_answered(gateway: Gateway) -> None:
    gateway.publisher.gate.clear()
    first = asyncio.create_task(gateway.send(idempotency_key="a"))
    await until(lambda: gateway.publisher.calls == 1)
    second = await gateway.send(idempotency_key="a")
    assert second.status == 409
    assert int(second.headers["Retry-After"]) >= 1
    assert (await gateway.send({"message": "b", "clientId": "1"}, idempotency_key="a")).status == 422
    gateway.publisher.gate.set()
    assert (await first).status == 202
    assert (await gateway.send(idempotency_key="a")).body == (await first).body


async def test_a_key_that_another_replica_is_publishing_is_409(gateway: Gateway) -> None:
    gateway.ledger.claims_last = True
    first = await gateway.send(idempotency_key="a")
    await until(lambda: bool(gateway.ledger.marked))
    gateway.ledger.marked.clear()  # reserved, claimed elsewhere, and not published as far as anyone knows
    again = await gateway.send(idempotency_key="a")
    assert (again.status, again.headers["Retry-After"]) == (409, "7")
    assert first.status == 202


async def test_a_claim_that_ran_out_publishes_the_stored_event(gateway: Gateway) -> None:
    first = await gateway.send(idempotency_key="a")
    await until(lambda: bool(gateway.ledger.marked))
    gateway.ledger.marked.clear()
    gateway.ledger.claims_last = False
    again = await gateway.send(idempotency_key="a")
    assert (again.status, again.body) == (202, first.body)
    one, two = gateway.publisher.records
    assert one == two


async def test_after_a_failed_publish_the_next_try_need_not_wait(gateway: Gateway) -> None:
    gateway.publisher.error = PublishFailed("away")
    assert (await gateway.send(idempotency_key="a")).status == 503
    gateway.publisher.error = None
    answer = await gateway.send(idempotency_key="a")
    assert answer.status == 202
    assert answer.body["id"] == str(next(iter(gateway.ledger.rows.values())).message_id)
    assert answer.body["id"] in [str(event.subject) for event in gateway.publisher.events]


async def test_without_kafka_and_then_without_postgres_too_it_is_503(gateway: Gateway) -> None:
    gateway.publisher.gate.clear()
    waiting = asyncio.create_task(gateway.send(idempotency_key="a"))
    await until(lambda: gateway.publisher.calls == 1)
    gateway.publisher.error, gateway.ledger.error = PublishFailed("away"), ConnectionRefusedError()
    gateway.publisher.gate.set()
    assert (await waiting).status == 503


@pytest.mark.parametrize("key", [None, "a"])
async def test_what_kafka_is_silent_about_is_503(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gatherer, accepting):
        monkeypatch.setattr(module, "LEAST_SECONDS", 0.05)
    async with running_gateway(timeout_seconds=0.05) as gateway:
        gateway.publisher.gate.clear()
        assert (await gateway.send(idempotency_key=key)).status == 503
        assert gateway.kafka.missing() is not None


@pytest.mark.parametrize("key", [None, "a"])
async def test_when_too_many_wait_already_one_more_is_503_and_may_be_repeated(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.setattr(gatherer, "MAX_WAITING", 0)
    answer = await gateway.send(idempotency_key=key)
    assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    monkeypatch.undo()
    assert (await gateway.send(idempotency_key=key)).status == 202


async def test_each_message_is_counted_once_when_it_is_accepted(gateway: Gateway) -> None:
    def counted() -> list[float]:
        name = "postrider_messages_accepted_total"
        return [REGISTRY.get_sample_value(name, {"priority": priority}) or 0.0 for priority in ("normal", "high")]

    before = counted()
    high = {"message": "Hello", "clientId": "17", "priority": "high"}
    for body, key in ((None, None), (high, None), (high, "a"), (high, "a")):
        assert (await gateway.send(body, idempotency_key=key)).status == 202
    gateway.publisher.error = PublishFailed("away")
    for key in (None, "b"):
        assert (await gateway.send(idempotency_key=key)).status == 503
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 2]


async def test_that_the_reservation_took_long_is_not_kafkas_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gatherer, "LEAST_SECONDS", 0.0)  # so the flush's time is over when it is reserved
    async with running_gateway(timeout_seconds=0.0) as gateway:
        gateway.publisher.gate.clear()
        answer = asyncio.create_task(gateway.send(idempotency_key="a"))
        await until(lambda: gateway.publisher.calls == 1)
        gateway.publisher.gate.set()
        assert (await answer).status == 202


async def test_without_postgres_only_requests_with_a_key_are_503(gateway: Gateway) -> None:
    gateway.ledger.error = ConnectionRefusedError()
    answer = await gateway.send(idempotency_key="a")
    assert answer.status == 503
    assert "Retry-After" in answer.headers
    assert gateway.postgres.missing() is not None
    assert (await gateway.send()).status == 202
    gateway.ledger.error = None
    assert (await gateway.send(idempotency_key="a")).status == 202
    assert gateway.postgres.missing() is None


async def test_marks_are_written_once_postgres_is_back(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    original = gateway.ledger.mark
    refused = asyncio.Event()

    async def away(keys: object) -> None:
        refused.set()
        raise ConnectionRefusedError

    monkeypatch.setattr(known_keys, "RETRY_SECONDS", 0.0)
    gateway.ledger.mark = away  # type: ignore[method-assign]
    first = await gateway.send(idempotency_key="a")
    await asyncio.wait_for(refused.wait(), 5)
    assert (await gateway.send(idempotency_key="a")).body == first.body
    gateway.ledger.mark = original  # type: ignore[method-assign]
    await until(lambda: gateway.ledger.marked == ["demo/all/a"])


async def test_what_is_published_while_others_are_marked_is_marked_after_them(gateway: Gateway) -> None:
    original = gateway.ledger.mark
    marking, go_on = asyncio.Event(), asyncio.Event()

    async def slow(keys: Sequence[str]) -> None:
        marking.set()
        await go_on.wait()
        await original(keys)

    gateway.ledger.mark = slow  # type: ignore[method-assign]
    await gateway.send(idempotency_key="a")
    await asyncio.wait_for(marking.wait(), 5)
    await gateway.send(idempotency_key="b")
    go_on.set()
    await until(lambda: gateway.ledger.marked == ["demo/all/a", "demo/all/b"])


async def test_a_stop_answers_what_waits_and_marks_it(gateway: Gateway) -> None:
    gateway.publisher.gate.clear()
    client = await Client.connect(gateway)
    client.send(post("1", b"Idempotency-Key: a\r\n") + post("2", b"Idempotency-Key: b\r\n"))
    await until(lambda: gateway.publisher.calls == 1)
    stops = [asyncio.create_task(stop) for stop in (gateway.server.stop(10), gateway.accepter.stop())]
    await asyncio.sleep(0.05)
    gateway.publisher.gate.set()
    assert [(await client.answer())[0] for _ in range(2)] == [202, 202]
    await asyncio.gather(*stops)
    assert gateway.ledger.marked == ["demo/all/a", "demo/all/b"]


async def test_neither_texts_nor_keys_nor_people_are_logged(gateway: Gateway, capsys) -> None:  # type: ignore[no-untyped-def]
    gateway.publisher.error = PublishFailed("away")
    await gateway.send({"message": "Very private", "clientId": "person-4711"}, idempotency_key="key-4711")
    gateway.ledger.error = ConnectionRefusedError()
    await gateway.send({"message": "Very private", "clientId": "person-4711"}, idempotency_key="key-4711")
    await gateway.ask("PUT", "/clients/person-4711", data=b'{"phone": "+254700004711"', headers={})
    logged = "".join(capsys.readouterr())
    assert logged
    for secret in ("Very private", "4711", SEND_KEY):
        assert secret not in logged


async def test_the_documents_are_open_to_all(gateway: Gateway) -> None:
    for path in ("/openapi.json", "/asyncapi.json"):
        answer = await gateway.ask("GET", path, key=None)
        assert answer.status == 200
        assert json.dumps(answer.body)
