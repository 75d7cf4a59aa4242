"""Pages of the list: their order, what they are filtered by, and what they cost."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from libs.contracts.events import PersonKind
from libs.contracts.http.answers import Sms
from libs.contracts.http.requests import SmsQuery
from libs.service_kit.pages import BadCursor, cursor_after
from libs.storage.database import Pool
from services.projection.queries import find, page, page_query
from tests.services.projection.asking import at, numbers
from tests.services.projection.conftest import fold_in
from tests.services.projection.stories import TENANT, Story


@pytest.fixture(scope="module")
async def filled(lasting_pool: Pool) -> Pool:
    """40 messages, a second apart: clients and staff members in turn, every fourth elsewhere and not yet delivered."""
    told = []
    for number in range(40):
        story = Story(
            number,
            at=at(number),
            kind=PersonKind.STAFF if number % 2 else PersonKind.CLIENT,
            person=f"p-{number % 6}",
            tags=("loan", f"t{number % 3}"),
            gateway="spare" if number % 4 == 0 else "demo",
            phone=f"+49151000000{number % 5}",
        )
        told += story.delivered()[: 2 if number % 4 == 0 else 4]
    told += [step for number in (1, 2) for step in Story(100 + number, tenant="clinic", at=at(number)).delivered()]
    await fold_in(lasting_pool, told)
    return lasting_pool


async def test_pages_go_from_the_newest_to_the_oldest_and_meet_everything_once(filled: Pool) -> None:
    seen: list[Sms] = []
    cursor = None
    while True:
        answer = await page(filled, TENANT, SmsQuery(limit=7, cursor=cursor))
        seen += answer.items
        cursor = answer.next_cursor
        if cursor is None:
            break
        assert len(answer.items) == 7
    assert [item.number for item in seen] == list(range(39, -1, -1))


async def test_what_comes_in_meanwhile_does_not_shift_the_next_page(pool: Pool) -> None:
    for number in range(4):
        await fold_in(pool, [Story(number, at=at(number)).requested()])
    first = await page(pool, TENANT, SmsQuery(limit=2))
    await fold_in(pool, [Story(4, at=at(4)).requested()])
    assert await numbers(pool, limit=2, cursor=first.next_cursor) == [1, 0]


async def test_a_last_page_that_is_just_full_has_no_next_one(filled: Pool) -> None:
    assert (await page(filled, TENANT, SmsQuery(limit=40))).next_cursor is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"clientId": "p-2"}, [n for n in range(40) if n % 6 == 2]),
        ({"staffId": "p-1"}, [n for n in range(40) if n % 6 == 1]),
        ({"clientId": "p-1"}, []),
        ({"status": "queued"}, [n for n in range(40) if n % 4 == 0]),
        ({"status": "failed"}, []),
        ({"gateway": "demo"}, [n for n in range(40) if n % 4]),
        ({"tag": "t1"}, [n for n in range(40) if n % 3 == 1]),
        ({"tag": "loan", "gateway": "spare"}, [n for n in range(40) if n % 4 == 0]),
        ({"number": "+491510000003"}, [n for n in range(40) if n % 5 == 3]),
        ({"number": "+491510000003", "from": at(20)}, [n for n in range(20, 40) if n % 5 == 3]),
        ({"number": "+491510000009"}, []),
        ({"from": at(30)}, list(range(30, 40))),
        ({"to": at(3)}, [0, 1, 2]),
        ({"from": at(3), "to": at(5)}, [3, 4]),
        ({"from": at(3.0000001), "to": at(5.0000001)}, [3, 4]),
        ({"from": at(3.000001), "to": at(5.000001)}, [4, 5]),
        ({"from": at(5), "to": at(3)}, []),
        ({"from": datetime.min.replace(tzinfo=UTC), "to": datetime.max.replace(tzinfo=UTC)}, list(range(40))),
        ({"clientId": "p-4", "status": "delivered", "tag": "t1", "from": at(10)}, [10, 22, 34]),
    ],
)
async def test_every_filter_must_hold(filled: Pool, query: dict[str, Any], expected: list[int]) -> None:
    assert await numbers(filled, limit=100, **query) == expected[::-1]


async def test_a_number_is_found_page_by_page(filled: Pool) -> None:
    first = await page(filled, TENANT, SmsQuery(number="+491510000003", limit=3))
    assert [item.number for item in first.items] == [38, 33, 28]
    assert await numbers(filled, number="+491510000003", limit=3, cursor=first.next_cursor) == [23, 18, 13]


async def test_a_message_that_went_to_one_number_in_two_legs_is_listed_once(pool: Pool) -> None:
    story = Story(1)
    await fold_in(pool, [story.requested(), story.dispatched(), story.returned(), story.dispatched()])
    assert await numbers(pool, number=story.phone) == [1]


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "A" * 21, "A" * 23, "é" * 22, "=" * 22, "A" * 21 + "/"])
def test_a_cursor_that_no_page_gave_is_refused(cursor: str) -> None:
    with pytest.raises(BadCursor):
        page_query(TENANT, SmsQuery(cursor=cursor))


async def test_another_tenants_message_is_not_found(filled: Pool) -> None:
    foreign = Story(101, tenant="clinic", at=at(1))
    assert await find(filled, TENANT, foreign.id) is None
    assert await find(filled, "clinic", foreign.id) is not None
    assert [s.number for s in (await page(filled, "clinic", SmsQuery())).items] == [102, 101]


GENERATED = 30_000
GENERATE = f"""
WITH made AS (
    SELECT n, encode(substring(int8send((1000 * extract(epoch FROM now()))::int8 - 60000::int8 * n) FROM 3), 'hex')
        || '7000' || '8000' || lpad(to_hex(n), 12, '0') AS id
    FROM generate_series(1, {GENERATED}) AS n
), messages AS (
    INSERT INTO messages SELECT 'bank', id::uuid, 'client', 'p-' || n % 300,
        CASE n % 10000 WHEN 0 THEN 'failed' ELSE 'delivered' END, 'demo', ARRAY['t' || n % 30], '', 1 FROM made
)
INSERT INTO personal SELECT id::uuid, 1, 1, '+4915' || n % 300, NULL, NULL FROM made
"""
"""A message a minute for three weeks; there is no fold, since it is plans that are looked at."""


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]


async def test_every_page_walks_an_index_and_a_late_one_costs_what_the_first_does(pool: Pool) -> None:
    await pool.execute(GENERATE)
    late = await pool.fetchval("SELECT message_id FROM messages ORDER BY message_id OFFSET 10000 LIMIT 1")
    whole = GENERATED / 20  # in blocks: what a read of everything would cost, and more
    for analyzed in (False, True):  # a young partition has no statistics
        if analyzed:
            await pool.execute("ANALYZE messages, personal")
        for query in (
            SmsQuery(),
            SmsQuery(client_id="p-7"),
            SmsQuery(number="+49157"),
            SmsQuery(tag="t7"),
            SmsQuery(status="delivered"),
            SmsQuery(gateway="demo"),
            SmsQuery(client_id="p-7", number="+49157", tag="t7"),
            SmsQuery(from_=datetime.now(UTC) - timedelta(days=5)),
            SmsQuery(status="failed"),
        ):
            rare = query.status == "failed"
            for cursor in (None, cursor_after(late)):
                sql, arguments = page_query("bank", query.model_copy(update={"cursor": cursor, "limit": 5}))
                found = await pool.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *arguments)
                plan = json.loads(found)[0]["Plan"]
                ways = {node["Node Type"] for node in nodes(plan) if node["Actual Loops"]}
                assert not any("Sort" in way or "Seq" in way or "Bitmap" in way for way in ways - {"Sort"}), (
                    query,
                    ways,
                )
                sorted_rows = [node["Actual Rows"] for node in nodes(plan) if node["Node Type"] == "Sort"]
                assert sum(sorted_rows) == 0, (query, ways)  # the planner puts one above what it knows to be empty
                assert rare or plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < whole / 4, (query, plan)
