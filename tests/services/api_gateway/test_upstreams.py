"""Contacts and reads, passed on to stand-ins for the resolver and the projection."""

import asyncio

import pytest

from services.api_gateway import upstreams
from tests.services.api_gateway.fakes import OTHER_TENANT_KEY, SEND_KEY, Asked, Gateway, running_gateway

MESSAGE = "019b30cb-7a50-7a55-9d3e-2b1f0c8e7a41"


@pytest.mark.parametrize("path", ["clients", "staff"])
async def test_a_person_is_put_at_the_resolver(gateway: Gateway, path: str) -> None:
    gateway.resolver.status, gateway.resolver.body = 201, b'{"id": "17"}'
    answer = await gateway.ask("PUT", f"/{path}/17", json={"phone": "0700 000001", "name": "Amina"})
    assert (answer.status, answer.body) == (201, {"id": "17"})
    body = {"phone": "0700 000001", "name": "Amina"}
    assert gateway.resolver.asked == [Asked("PUT", f"/internal/{path}/17", {}, "demo", body)]


@pytest.mark.parametrize("path", ["clients", "staff"])
async def test_a_person_is_read_and_deleted_there(gateway: Gateway, path: str) -> None:
    assert (await gateway.ask("GET", f"/{path}/17")).status == 200
    gateway.resolver.status = 204
    answer = await gateway.ask("DELETE", f"/{path}/17")
    assert (answer.status, answer.body) == (204, b"")
    assert [(a.method, a.path) for a in gateway.resolver.asked] == [
        ("GET", f"/internal/{path}/17"),
        ("DELETE", f"/internal/{path}/17"),
    ]


@pytest.mark.parametrize("person", ["a%2Fb", "a%20b%3Fc", "%D1%84", "..%2F..%2Fsms", "a%25b", "%2E%2E"])
async def test_an_id_stays_one_step_of_the_path(gateway: Gateway, person: str) -> None:
    assert (await gateway.ask("GET", f"/clients/{person}")).status == 200
    (asked,) = gateway.resolver.asked
    assert asked.path.startswith("/internal/clients/")
    assert asked.path.count("/") == 3


async def test_the_tenant_is_that_of_the_key_and_of_nothing_else(gateway: Gateway) -> None:
    headers = {"X-Postrider-Tenant": "demo", "X-Postrider-Internal": "guess"}
    await gateway.ask("GET", f"/sms/{MESSAGE}", key=OTHER_TENANT_KEY, headers=headers)
    assert [a.tenant for a in gateway.projection.asked] == ["other"]


async def test_a_message_is_read_at_the_projection_byte_by_byte(gateway: Gateway) -> None:
    gateway.projection.body = b'{"big":  "' + b"x" * 300_000 + b'"}'
    answer = await gateway.ask("GET", f"/sms/{MESSAGE}")
    assert answer.body == {"big": "x" * 300_000}
    assert gateway.projection.asked[0].path == f"/internal/sms/{MESSAGE}"


async def test_a_batch_is_read_at_the_projection(gateway: Gateway) -> None:
    gateway.projection.body = b'{"total": 3}'
    answer = await gateway.ask("GET", f"/batches/{MESSAGE}", key=OTHER_TENANT_KEY)
    assert (answer.status, answer.body) == (200, {"total": 3})
    assert gateway.projection.asked == [Asked("GET", f"/internal/batches/{MESSAGE}", {}, "other", None)]
    assert (await gateway.ask("GET", "/batches/7")).body["errors"][0]["field"] == "id"
    assert (await gateway.ask("GET", f"/batches/{MESSAGE}", key=SEND_KEY)).status == 403


async def test_the_query_goes_on_as_it_was_asked(gateway: Gateway) -> None:
    query = "clientId=17&status=delivered&from=2026-01-31T08:00:00%2B03:00&tag=a%26b&number=%2B254700000001&limit=10"
    query += f"&batchId={MESSAGE}"
    assert (await gateway.ask("GET", f"/sms?{query}")).status == 200
    (asked,) = gateway.projection.asked
    assert asked.path == "/internal/sms"
    assert asked.query == {
        "clientId": "17",
        "status": "delivered",
        "from": "2026-01-31T08:00:00+03:00",
        "tag": "a&b",
        "number": "+254700000001",
        "limit": "10",
        "batchId": MESSAGE,
    }


async def test_a_number_whose_plus_is_not_escaped_goes_on_with_it(gateway: Gateway) -> None:
    for path in ("/sms", "/inbound"):
        assert (await gateway.ask("GET", f"{path}?number=+254700000001")).status == 200
    assert [asked.query for asked in (*gateway.projection.asked, *gateway.inbound.asked)] == [
        {"number": "+254700000001"}
    ] * 2


async def test_what_handsets_sent_is_read_at_the_inbound_service(gateway: Gateway) -> None:
    assert (await gateway.ask("GET", "/inbound?number=%2B254700000001&gateway=demo&limit=10")).status == 200
    assert (await gateway.ask("GET", f"/inbound/{MESSAGE}")).status == 200
    assert (await gateway.ask("GET", "/inbound?from=2026-01-31T08:00:00")).status == 400
    page, one = gateway.inbound.asked
    assert (page.path, page.query) == (
        "/internal/inbound",
        {"number": "+254700000001", "gateway": "demo", "limit": "10"},
    )
    assert (one.path, one.tenant) == (f"/internal/inbound/{MESSAGE}", "demo")


@pytest.mark.parametrize("status", [400, 404, 409, 422])
async def test_the_owners_own_problems_are_passed_on(gateway: Gateway, status: int) -> None:
    gateway.projection.status = status
    gateway.projection.content_type = "application/problem+json"
    gateway.projection.body = b'{"title": "theirs"}'
    answer = await gateway.ask("GET", f"/sms/{MESSAGE}")
    assert (answer.status, answer.body) == (status, {"title": "theirs"})
    assert answer.headers["Content-Type"].startswith("application/problem+json")


async def test_an_owner_that_is_behind_says_itself_when_to_ask_again(gateway: Gateway) -> None:
    gateway.projection.status, gateway.projection.content_type = 503, "application/problem+json"
    gateway.projection.body = b'{"title": "Service Unavailable"}'
    gateway.projection.headers = {"Retry-After": "7", "X-Theirs": "kept"}
    answer = await gateway.ask("GET", f"/sms/{MESSAGE}")
    assert (answer.status, answer.body) == (503, {"title": "Service Unavailable"})
    assert answer.headers["Retry-After"] == "7"
    assert "X-Theirs" not in answer.headers


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (500, "text/plain", b"Traceback"),
        (500, "application/problem+json", b"{}"),
        (401, "text/plain", b"this address is for Postrider's own services"),
        (401, "application/problem+json", b"{}"),
        (404, "text/html", b"<html>"),
        (200, "text/html", b"<html>"),
        (302, "text/plain", b""),
    ],
)
async def test_a_fault_of_the_owner_is_503_and_shows_nothing_of_it(
    gateway: Gateway, status: int, content_type: str, body: bytes
) -> None:
    gateway.resolver.status, gateway.resolver.content_type, gateway.resolver.body = status, content_type, body
    if status == 302:
        gateway.resolver.headers = {"Location": f"{gateway.projection.url}/internal/sms"}
    answer = await gateway.ask("GET", "/clients/17")
    assert answer.status == 503
    assert "Retry-After" in answer.headers
    assert "resolver" in answer.body["detail"]
    assert "html" not in str(answer.body)
    assert gateway.projection.asked == []


async def test_an_owner_that_is_away_is_503(gateway: Gateway) -> None:
    await gateway.resolver.stop()
    answer = await gateway.ask("PUT", "/clients/17", json={"phone": "+254700000001"})
    assert answer.status == 503
    assert "Retry-After" in answer.headers
    assert (await gateway.send()).status == 202


async def test_an_owner_that_is_silent_is_503() -> None:
    async with running_gateway(forward_seconds=0.1) as gateway:
        gateway.projection.gate.clear()
        answer = await gateway.ask("GET", f"/sms/{MESSAGE}")
        assert (answer.status, answer.body["detail"]) == (503, "the projection is away")


async def test_a_read_that_failed_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "CONNECTIONS", 1)
    async with running_gateway() as gateway:
        gateway.projection.status = 500
        assert (await gateway.ask("GET", f"/sms/{MESSAGE}")).status == 503
        gateway.projection.status = 200
        assert (await gateway.ask("GET", f"/sms/{MESSAGE}")).status == 200


async def test_reads_that_wait_for_one_owner_keep_nobody_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "CONNECTIONS", 3)
    monkeypatch.setattr(upstreams, "TURN_SECONDS", 0.05)
    async with running_gateway() as gateway:
        gateway.projection.gate.clear()
        reads = [asyncio.create_task(gateway.ask("GET", f"/sms/{MESSAGE}")) for _ in range(3)]
        async with asyncio.timeout(5):
            while len(gateway.projection.asked) < 3:
                await asyncio.sleep(0.002)
            refused = await gateway.ask("GET", f"/sms/{MESSAGE}")
            assert (await gateway.ask("PUT", "/clients/17", json={})).status == 200
        assert refused.status == 503
        assert refused.body["detail"] == "too many calls wait for the projection already"
        assert "Retry-After" in refused.headers
        gateway.projection.gate.set()
        assert [read.status for read in await asyncio.gather(*reads)] == [200] * 3
        assert (await gateway.ask("GET", f"/sms/{MESSAGE}")).status == 200
