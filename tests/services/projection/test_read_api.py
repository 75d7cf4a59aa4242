import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import TopicPartition
from yarl import URL

from libs.contracts.http.answers import Batch, Problem, SmsPage, SmsWithHistory
from libs.service_kit.internal import TENANT_HEADER
from libs.storage.database import Pool
from services.projection.read_api import Outbox, ReadApi
from tests.services.held_up import held_up
from tests.services.projection.conftest import fold_in
from tests.services.projection.stories import START, TENANT, Story, message_id

TENANTS = {TENANT_HEADER: TENANT}


class Arrivals:
    """How far Kafka and the outbox are, as the test says."""

    def __init__(self) -> None:
        self.end = 0
        self.applied = 0
        self.away = False
        self.asked = asyncio.Event()
        self.hurried = False
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    def hurry(self) -> None:
        self.hurried = True

    async def ends(self) -> Mapping[TopicPartition, int]:
        if self.away:
            raise KafkaConnectionError
        return {TopicPartition("sms.requested", 0): self.end}

    async def passed(self, ends: Mapping[TopicPartition, int]) -> bool:
        self.asked.set()
        if self.meanwhile is not None:
            await self.meanwhile()
        return all(self.applied >= end for end in ends.values())


@pytest.fixture
def arrivals() -> Arrivals:
    return Arrivals()


@pytest.fixture
async def client(lasting_pool: Pool, arrivals: Arrivals) -> AsyncIterator[TestClient]:
    api = ReadApi()
    api.outbox = Outbox(lasting_pool, arrivals, arrivals.hurry, wait_seconds=0.3, read_seconds=10, default_region="KE")
    app = web.Application()
    app.router.add_routes(api.routes())
    async with TestClient(TestServer(app)) as made:
        yield made


async def problem(client: TestClient, path: str, headers: Mapping[str, str] = TENANTS) -> Problem:
    async with client.get(path, headers=headers) as response:
        assert response.content_type == "application/problem+json"
        answer = Problem.model_validate_json(await response.read())
        assert answer.status == response.status
        assert ("Retry-After" in response.headers) == (response.status == 503)
        return answer


async def test_a_message_is_answered_with_its_history(client: TestClient, lasting_pool: Pool) -> None:
    story = Story(1)
    await fold_in(lasting_pool, story.delivered())
    async with client.get(f"/internal/sms/{story.id}", headers=TENANTS) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        answer = SmsWithHistory.model_validate_json(await response.read())
    assert answer.id == story.id
    assert [t.status for t in answer.history] == ["accepted", "queued", "submitted", "delivered"]


async def test_pages_are_answered_and_cursors_taken_back(client: TestClient, lasting_pool: Pool) -> None:
    for number in range(3):
        await fold_in(lasting_pool, Story(number, tenant="paged").delivered())

    async def page(query: str) -> SmsPage:
        async with client.get(f"/internal/sms?{query}", headers={TENANT_HEADER: "paged"}) as response:
            assert response.status == 200
            return SmsPage.model_validate_json(await response.read())

    first = await page("limit=2&status=delivered&clientId=client-1&from=2026-11-20T08:00:00Z")
    assert [item.number for item in first.items] == [2, 1]
    second = await page(f"limit=2&cursor={first.next_cursor}")
    assert ([item.number for item in second.items], second.next_cursor) == ([0], None)


@pytest.mark.parametrize(
    ("form", "region", "found"),
    [
        ("%2B254711000001", None, 51),
        ("+254711000001", None, 51),
        ("254711000001", None, 51),
        ("00254711000001", None, 51),
        ("+254+711-000+001", None, 51),
        ("254711000001", "KE", 51),
        ("0711000001", "KE", 51),
        ("256772123456", "KE", 52),
        ("%2B254011000001", "KE", 53),  # of no numbering plan any more
        ("5016101234", "US", 54),  # and not one of Belize
        ("%2B254711000002", "KE", None),
    ],
)
async def test_a_message_is_found_by_any_form_of_its_number(
    lasting_pool: Pool, arrivals: Arrivals, form: str, region: str | None, found: int | None
) -> None:
    for number, phone in ((51, "+254711000001"), (52, "+256772123456"), (53, "+254011000001"), (54, "+15016101234")):
        await fold_in(lasting_pool, Story(number, tenant="numbers", phone=phone).delivered())
    api = ReadApi()
    api.outbox = Outbox(lasting_pool, arrivals, arrivals.hurry, wait_seconds=0, read_seconds=10, default_region=region)
    app = web.Application()
    app.router.add_routes(api.routes())
    address = URL(f"/internal/sms?number={form}", encoded=True)
    async with (
        TestClient(TestServer(app)) as client,
        client.get(address, headers={TENANT_HEADER: "numbers"}) as response,
    ):
        page = SmsPage.model_validate_json(await response.read())
    assert [item.number for item in page.items] == ([found] if found else [])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("cursor=nonsense", "cursor"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("status=lost", "status"),
        ("from=yesterday", "from"),
        ("to=2026-01-01T00:00:00", "to"),
        ("to=2026-01-01T00:00:00%2B01:00:30", "to"),
        ("clientId=", "clientId"),
        ("clientId=1&staffId=2", "query"),
        ("gateway=NOT%20A%20SLUG", "gateway"),
        ("number=%00", "number"),
        ("number=", "number"),
        ("number=18", "number"),
        ("number=+18", "number"),
        ("number=1234567", "number"),
        ("number=CLINIC", "number"),
        ("number=%2B254711000001x", "number"),
        ("client=1", "client"),
    ],
)
async def test_a_wrong_query_is_told_by_field(client: TestClient, query: str, field: str) -> None:
    answer = await problem(client, f"/internal/sms?{query}")
    assert answer.status == 400
    assert [error.field for error in answer.errors] == [field]


async def test_a_request_without_tenant_is_refused(client: TestClient) -> None:
    answer = await problem(client, "/internal/sms", headers={})
    assert (answer.status, answer.errors[0].field) == (400, TENANT_HEADER)


async def test_an_unknown_message_is_404_at_once_when_the_outbox_has_passed_kafka(client: TestClient) -> None:
    assert (await problem(client, f"/internal/sms/{uuid4()}")).status == 404


async def test_an_id_that_is_none_is_404(client: TestClient) -> None:
    assert (await problem(client, "/internal/sms/7")).status == 404


async def test_another_tenants_message_is_404(client: TestClient, lasting_pool: Pool) -> None:
    story = Story(2, tenant="clinic")
    await fold_in(lasting_pool, story.delivered())
    assert (await problem(client, f"/internal/sms/{story.id}")).status == 404


async def test_a_message_on_its_way_is_waited_for(client: TestClient, lasting_pool: Pool, arrivals: Arrivals) -> None:
    arrivals.end = 1
    story = Story(3)

    async def arrive() -> None:
        await arrivals.asked.wait()
        await fold_in(lasting_pool, [story.requested()])

    arrival = asyncio.create_task(arrive())
    async with client.get(f"/internal/sms/{story.id}", headers=TENANTS) as response:
        assert response.status == 200
    await arrival
    assert arrivals.hurried


async def test_a_message_with_which_the_outbox_passes_kafka_is_found(
    client: TestClient, lasting_pool: Pool, arrivals: Arrivals
) -> None:
    story = Story(6)

    async def arrive() -> None:
        await fold_in(lasting_pool, [story.requested()])

    arrivals.meanwhile = arrive
    async with client.get(f"/internal/sms/{story.id}", headers=TENANTS) as response:
        assert response.status == 200


async def test_a_batch_on_its_way_is_waited_for_and_an_unknown_one_is_404(
    client: TestClient, lasting_pool: Pool, arrivals: Arrivals
) -> None:
    assert (await problem(client, f"/internal/batches/{uuid4()}")).detail == "no such batch is known"
    assert (await problem(client, "/internal/batches/7")).status == 404
    arrivals.asked.clear()
    arrivals.end = 1
    batch_id = message_id(START, 4711)

    async def arrive() -> None:
        await arrivals.asked.wait()
        await fold_in(lasting_pool, [Story(4, batch=batch_id).requested()])

    arrival = asyncio.create_task(arrive())
    async with client.get(f"/internal/batches/{batch_id}", headers=TENANTS) as response:
        assert response.status == 200
        answer = Batch.model_validate_json(await response.read())
    await arrival
    assert (answer.total, answer.by_status) == (1, {"accepted": 1})


async def test_an_unknown_message_is_404_only_when_the_outbox_has_passed_kafka(
    client: TestClient, arrivals: Arrivals
) -> None:
    arrivals.end = 1
    asked = asyncio.create_task(problem(client, f"/internal/sms/{uuid4()}"))
    await arrivals.asked.wait()
    arrivals.applied = 1
    assert (await asked).status == 404


async def test_while_the_outbox_is_behind_nothing_is_said_to_be_unknown(client: TestClient, arrivals: Arrivals) -> None:
    arrivals.end = 1
    assert (await problem(client, f"/internal/sms/{uuid4()}")).status == 503


async def test_while_kafka_is_away_known_messages_are_answered_and_others_can_not_be(
    client: TestClient, lasting_pool: Pool, arrivals: Arrivals
) -> None:
    arrivals.away = True
    story = Story(4)
    await fold_in(lasting_pool, [story.requested()])
    async with client.get(f"/internal/sms/{story.id}", headers=TENANTS) as response:
        assert response.status == 200
    assert (await problem(client, f"/internal/sms/{uuid4()}")).status == 503


@pytest.mark.parametrize(("query", "rare"), [("?tag=rare", True), ("?limit=5", False)])
async def test_a_search_that_takes_too_long_is_called_off(
    client: TestClient, lasting_pool: Pool, arrivals: Arrivals, query: str, rare: bool
) -> None:
    api = ReadApi()
    api.outbox = Outbox(lasting_pool, arrivals, arrivals.hurry, wait_seconds=0, read_seconds=0.2, default_region=None)
    app = web.Application()
    app.router.add_routes(api.routes())
    async with TestClient(TestServer(app)) as impatient, lasting_pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE messages")
        answer = await problem(impatient, f"/internal/sms{query}")
    assert answer.status == 503
    assert ("narrow" in (answer.detail or "")) is rare


@pytest.mark.parametrize("path", ["sms", f"sms/{UUID(int=1)}", f"batches/{UUID(int=1)}"])
async def test_the_wait_for_a_connection_and_for_its_answers_is_bounded_as_one(
    lasting_pool: Pool, arrivals: Arrivals, path: str
) -> None:
    api = ReadApi()
    api.outbox = Outbox(lasting_pool, arrivals, arrivals.hurry, wait_seconds=0, read_seconds=0.5, default_region=None)
    app = web.Application()
    app.router.add_routes(api.routes())
    async with TestClient(TestServer(app)) as impatient, held_up(lasting_pool, "messages", 0.45):
        assert (await problem(impatient, f"/internal/{path}")).status == 503


async def test_a_wait_in_which_postgres_is_silent_is_bounded(lasting_pool: Pool, arrivals: Arrivals) -> None:
    async def silent() -> None:
        await asyncio.Event().wait()

    arrivals.meanwhile = silent
    api = ReadApi()
    api.outbox = Outbox(lasting_pool, arrivals, arrivals.hurry, wait_seconds=0, read_seconds=0.5, default_region=None)
    app = web.Application()
    app.router.add_routes(api.routes())
    async with TestClient(TestServer(app)) as impatient, asyncio.timeout(60):
        assert (await problem(impatient, f"/internal/sms/{UUID(int=1)}")).status == 503


async def test_before_the_outbox_is_open_reads_are_told_to_come_back() -> None:
    app = web.Application()
    app.router.add_routes(ReadApi().routes())
    async with TestClient(TestServer(app)) as early:
        assert (await problem(early, "/internal/sms")).status == 503
