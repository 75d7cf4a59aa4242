"""Folds and rows as Postgres keeps them."""

from dataclasses import replace

import msgspec
import pytest

from libs.bus.codec import decoder, encode
from libs.contracts.events import SmsDispatch, SmsRequested
from libs.contracts.fold import apply, new_fold
from libs.contracts.topics import REQUESTED
from libs.storage.database import Pool
from services.projection.rebuild.checking import differences
from services.projection.rows import decode_fold, encode_fold
from tests.services.projection.conftest import fold_in
from tests.services.projection.stories import Story


def test_a_fold_that_was_stored_before_requests_knew_their_cycles_is_read_as_of_the_first() -> None:
    event = Story(1).requested().event
    fold = new_fold(event)
    apply(fold, event)
    assert decode_fold(encode_fold(fold)) == fold
    tenant, kind, person, request, *others = msgspec.msgpack.decode(encode_fold(fold))
    older = msgspec.msgpack.encode((tenant, kind, person, request[:9], *others))
    assert decode_fold(older) == fold


async def test_texts_that_postgres_can_not_keep_are_kept_as_far_as_it_can(pool: Pool) -> None:
    story = Story(1, tags=("a\0b",))
    story.message = replace(story.message, text="one\0two")
    dispatched = story.dispatched()
    assert isinstance(dispatched.event.data, SmsDispatch)
    named = replace(dispatched.event, data=replace(dispatched.event.data, person_name="Ann\0"))
    await fold_in(pool, [story.requested(), dispatched._replace(event=named)])
    assert await pool.fetchval("SELECT text FROM personal") == "one\ufffdtwo"
    assert await pool.fetchval("SELECT person_name FROM personal") == "Ann\ufffd"
    assert await pool.fetchval("SELECT tags FROM messages") == ["a\ufffdb"]


@pytest.mark.parametrize("batch", [1, 4])
async def test_an_integer_beyond_64_bits_is_kept_as_its_digits_and_those_within_as_they_are(
    pool: Pool, batch: int
) -> None:
    first, *others = Story(1).delivered()
    assert isinstance(first.event.data, SmsRequested)
    beyond = {"a": [{"b": 2**64, "c": 2**64 - 1}, -(2**63)], "d": -(2**63) - 1, "e": True}
    event = replace(first.event, data=replace(first.event.data, custom_data=beyond))
    read = decoder(REQUESTED)(encode(event))
    await fold_in(pool, [first._replace(event=read), *others], batch)
    request = decode_fold(await pool.fetchval("SELECT fold FROM messages")).request
    assert request is not None
    assert request.custom_data == {
        "a": [{"b": "18446744073709551616", "c": 2**64 - 1}, -(2**63)],
        "d": "-9223372036854775809",
        "e": True,
    }
    async with pool.acquire() as connection:
        assert [found async for found in differences(connection, lambda _: None)] == []
