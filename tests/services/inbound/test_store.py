"""Parts in, messages out, on a real PostgreSQL."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from asyncpg import Record

from libs.contracts.events import Event, SmsInbound
from libs.contracts.http.answers import Inbound
from libs.contracts.http.requests import InboundQuery
from libs.contracts.message_ids import time_of
from libs.service_kit.pages import BadCursor, cursor_after
from libs.storage.database import Pool
from services.inbound.handlers import take
from services.inbound.queries import find, page
from services.inbound.store import store
from tests.services.inbound.examples import NOON, SENDER, event, parts, with_sar

LONG = "All of this text, which is longer than one part can hold. " * 7  # 3 parts


async def came(pool: Pool, *events: Event[SmsInbound], tenant: str = "demo") -> None:
    await store(pool, take(events, lambda _: tenant, None))


async def messages(pool: Pool, tenant: str = "demo", **filters: Any) -> list[Inbound]:
    """All pages, newest first."""
    found: list[Inbound] = []
    while True:
        shown = await page(pool, tenant, InboundQuery(**filters))
        found += shown.items
        if shown.next_cursor is None:
            return found
        filters["cursor"] = shown.next_cursor


async def test_a_message_is_stored_once_however_often_its_event_comes(pool: Pool) -> None:
    one = event(b"hello")
    await came(pool, one)
    await came(pool, one, one)
    (message,) = await messages(pool)
    assert (message.text, message.complete, message.total) == ("hello", True, 1)
    assert (message.source, message.destination, message.gateway) == (SENDER, "40404", "demo")
    assert time_of(message.id) == message.received_at == NOON
    assert message.parts[0].content_hex == b"hello".hex()


@pytest.mark.parametrize("split", [lambda: parts(LONG, 7), lambda: with_sar(LONG, 7)], ids=["header", "sar"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_three_parts_read_as_one_message_in_whatever_order_they_come(
    pool: Pool, split: Any, order: tuple[int, ...]
) -> None:
    events = split()
    for n, index in enumerate(order, start=1):
        await came(pool, events[index])
        (message,) = await messages(pool)
        assert (message.total, len(message.parts), message.complete) == (3, n, n == 3)
        assert message.text == (LONG if n == 3 else None)
    assert [part.part for part in message.parts] == [1, 2, 3]


async def test_parts_are_listed_by_their_numbers_also_where_the_first_came_last(pool: Pool) -> None:
    await came(pool, *parts(LONG, 7)[1:], parts(LONG, 7, at=60)[0])
    (message,) = await messages(pool)
    assert (message.text, [part.part for part in message.parts]) == (LONG, [1, 2, 3])


async def test_a_message_is_no_text_where_one_of_its_parts_is_none(pool: Pool) -> None:
    first, *others = parts(LONG, 7)
    data = first.data
    await came(pool, event(bytes.fromhex(data.content_hex), esm_class=data.esm_class, data_coding=4), *others)
    (message,) = await messages(pool)
    assert (message.complete, message.text) == (True, None)


async def test_parts_of_one_batch_are_joined_too(pool: Pool) -> None:
    await came(pool, *parts(LONG, 7), event(), *parts("Ж" * 100, 8, at=10))
    assert [m.text for m in await messages(pool)] == ["Ж" * 100, *(m.text for m in (await messages(pool))[1:])]
    assert {m.text for m in await messages(pool)} == {LONG, "STOP", "Ж" * 100}


@pytest.mark.parametrize("there", [3, 2], ids=lambda there: f"{there} parts of the second")
async def test_a_set_back_group_stores_nothing_anew(pool: Pool, there: int) -> None:
    events = [*parts(LONG, 7), *parts(LONG.upper(), 7, at=60)[:there], event()]
    await came(pool, *events)
    before = await messages(pool)
    for one in events:
        await came(pool, one)
    assert await messages(pool) == before
    assert len(before) == 3


async def test_a_part_that_the_carrier_brings_twice_is_listed_twice_and_read_once(pool: Pool) -> None:
    again = parts(LONG, 7)[1]
    await came(pool, *parts(LONG, 7), again)
    (message,) = await messages(pool)
    assert (message.text, [p.part for p in message.parts]) == (LONG, [1, 2, 2, 3])


async def test_a_reference_that_comes_again_joins_another_message(pool: Pool) -> None:
    first, second = parts(LONG, 7), parts(LONG.upper(), 7, at=600)
    late = parts(LONG.lower(), 7, at=timedelta(days=2).total_seconds())
    await came(pool, *first[:2], *second, *late)
    assert [(m.text, m.complete) for m in await messages(pool)] == [
        (LONG.lower(), True),
        (LONG.upper(), True),
        (None, False),
    ]


@pytest.mark.parametrize("change", [{"source": "254700000018"}, {"destination": "40405"}, {"gateway": "other"}])
async def test_other_senders_destinations_and_gateways_do_not_join(pool: Pool, change: dict[str, str]) -> None:
    await came(pool, parts(LONG, 7)[0], *parts(LONG, 7, **change)[1:])
    assert [m.complete for m in await messages(pool)] == [False, False]


async def test_parts_of_texts_of_another_length_do_not_join(pool: Pool) -> None:
    await came(pool, parts(LONG, 7)[0])
    await came(pool, *parts(LONG[:250], 7, at=10)[1:])
    assert sorted((m.total, m.complete) for m in await messages(pool)) == [(2, False), (3, False)]


async def test_a_part_that_comes_a_day_late_is_older_than_what_it_could_join(pool: Pool) -> None:
    early, late = parts(LONG, 7), parts(LONG, 7, at=timedelta(days=2).total_seconds())
    await came(pool, late[0], early[1], late[1], early[2], late[2])
    assert [(m.complete, len(m.parts)) for m in await messages(pool)] == [(True, 3), (False, 2)]


async def test_two_replicas_that_store_parts_at_once_make_one_message(pool: Pool) -> None:
    for reference in range(10):
        await asyncio.gather(*(came(pool, part) for part in parts(LONG, reference, at=reference * 10)))
    assert [m.complete for m in await messages(pool)] == [True] * 10


@pytest.mark.parametrize(
    ("content", "data_coding", "text"),
    [
        (b"\x00\x1b\x65", 0, "@€"),
        (b"na\xefve", 3, "naïve"),
        ("привет".encode("utf-16-be"), 8, "привет"),
        (b"plain", 0xF1, "plain"),
        (b"\x00\x1b\x65", 0x11, "@€"),
        ("привет".encode("utf-16-be"), 0x19, "привет"),
        (b"voicemail", 0xC8, "voicemail"),
        (b"\x01\x02", 4, None),
        (b"\x01\x02", 0xF5, None),
    ],
)
async def test_a_text_is_read_by_its_data_coding(
    pool: Pool, content: bytes, data_coding: int, text: str | None
) -> None:
    await came(pool, event(content, data_coding=data_coding))
    (message,) = await messages(pool)
    assert (message.text, message.complete) == (text, True)


@pytest.mark.parametrize(
    ("content", "data_coding", "text"),
    [
        (b"\x03\x24\x01\x01\x1bs\x1bg", 0, None),
        (b"\x03\x25\x01\x06\x2b\x41", 0, None),
        (b"\x03\x25\x01\x00plain", 0, "plain"),
        (b"\x03\x24\x01\x01" + "şğ".encode("utf-16-be"), 8, "şğ"),
    ],
)
async def test_a_text_in_a_national_alphabet_is_not_shown_as_another(
    pool: Pool, content: bytes, data_coding: int, text: str | None
) -> None:
    await came(pool, event(content, data_coding=data_coding, esm_class=0x40))
    (message,) = await messages(pool)
    assert (message.text, message.complete) == (text, True)


async def test_who_asks_from_what_was_seen_last_misses_nothing_of_the_same_moment(pool: Pool) -> None:
    await came(pool, event(b"first", 0.123_456), event(b"before", 0.122_999))
    (seen, _) = await messages(pool)
    await came(pool, event(b"second", 0.123_456), event(b"third", 0.123_999))
    assert {m.text for m in await messages(pool, from_=seen.received_at)} == {"first", "second", "third"}
    assert [m.text for m in await messages(pool, to=seen.received_at)] == ["before"]


async def test_pages_and_filters(pool: Pool) -> None:
    for n in range(7):
        await came(pool, event(str(n).encode(), n, gateway="odd" if n % 2 else "even"))
    await came(pool, event(b"other", 3, source="254700000018"))
    await came(pool, event(b"theirs", 9), tenant="bank")
    newest = [str(n) for n in reversed(range(7))]
    assert [m.text for m in await messages(pool, limit=2, number=SENDER)] == newest
    assert [m.text for m in await messages(pool, number="+254700000018")] == ["other"]
    assert [m.text for m in await messages(pool, gateway="odd", limit=1)] == ["5", "3", "1"]
    between = {"from": NOON + timedelta(seconds=2), "to": NOON + timedelta(seconds=5)}
    assert [m.text for m in await messages(pool, number=SENDER, **between)] == ["4", "3", "2"]
    ours = await page(pool, "demo", InboundQuery(limit=8))
    assert (len(ours.items), ours.next_cursor) == (8, None), "what is another tenant's takes no place in a page"
    (theirs,) = await messages(pool, tenant="bank")
    assert await find(pool, "bank", theirs.id) == theirs
    assert await find(pool, "demo", theirs.id) is None
    assert await find(pool, "demo", UUID(int=1)) is None
    with pytest.raises(BadCursor):
        await messages(pool, cursor="x")


class Forgetting:
    """A pool whose parts are all deleted after the first statement, as by the retention."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator["Forgetting"]:
        yield self

    async def fetch(self, sql: str, *arguments: object) -> list[Record]:
        rows = await self._pool.fetch(sql, *arguments)
        await self._pool.execute("DELETE FROM parts")
        return rows


async def test_a_page_whose_messages_are_forgotten_as_it_is_read_is_empty_and_goes_on(pool: Pool) -> None:
    for n in range(3):
        await came(pool, event(str(n).encode(), n))
    second = (await messages(pool))[1].id
    shown = await page(Forgetting(pool), "demo", InboundQuery(limit=2))  # type: ignore[arg-type]
    assert (shown.items, shown.next_cursor) == ((), cursor_after(second))
