import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from random import Random
from uuid import uuid4

import msgspec
import pytest
from aiokafka.structs import TopicPartition

from libs.bus.errors import BadRecord, Undecodable
from libs.contracts.events import PersonKind
from libs.contracts.fold import apply, new_fold
from libs.contracts.statuses import Status
from libs.service_kit.metrics import EVENTS_FOLDED
from libs.storage.database import Pool
from services.projection import store
from services.projection.folding import Prepared
from services.projection.handlers import apply_batch, prepare
from services.projection.recent import RecentFolds
from services.projection.rows import MessageRow, decode_fold
from services.projection.store import Connection, Position
from tests.services.projection.conftest import OpenPool, dump, fold_in, journalled, records, said
from tests.services.projection.stories import TENANT, Story, Told, tell


def stories(seed: int, messages: int) -> list[Told]:
    random = Random(seed)
    return [told for number in range(messages) for told in tell(random, number)]


async def test_the_row_of_a_message_is_its_fold_and_what_is_filtered_by(pool: Pool) -> None:
    story = Story(7, kind=PersonKind.STAFF, person="s-1", tags=("a", "b"))
    told = story.delivered()
    await fold_in(pool, told)
    row = await pool.fetchrow("SELECT * FROM messages")
    fold = new_fold(told[0].event)
    for _, _, event in told:
        apply(fold, event)
    assert decode_fold(row["fold"]) == fold
    assert (row["tenant"], row["message_id"], row["kind"], row["person"]) == (TENANT, story.id, "staff", "s-1")
    assert (row["status"], row["gateway"], row["tags"]) == ("delivered", "demo", ["a", "b"])


@pytest.mark.parametrize("batch", [1, 3, 500])
async def test_order_repetition_and_batches_do_not_change_a_byte(open_pool: OpenPool, batch: int) -> None:
    told = stories(seed=batch, messages=10 if batch == 1 else 30)
    straight, shuffled = await open_pool(), await open_pool()
    await fold_in(straight, told, batch=1000)
    random = Random(batch)
    mixed = told + random.choices(told, k=len(told) // 2)
    random.shuffle(mixed)
    # A memory this small forgets most messages between two of their events.
    await fold_in(shuffled, mixed, batch=batch, recent=RecentFolds(3))
    assert await said(shuffled) == await said(straight)


async def test_everything_applied_anew_changes_no_row_not_even_its_version(pool: Pool) -> None:
    told = stories(seed=1, messages=30)
    await fold_in(pool, told, batch=7)
    before = await dump(pool)
    await fold_in(pool, told, batch=20, recent=RecentFolds(1000))
    assert await dump(pool) == before


async def test_an_event_that_comes_again_without_those_it_came_with_is_not_journalled_again(pool: Pool) -> None:
    story, recent = Story(1), RecentFolds(10)
    await fold_in(pool, [story.requested()], recent=recent)
    *both, other = (story.status(Status.SUBMITTED, part, 3) for part in (1, 2, 3))
    for batch in (both, [other], [max(both, key=lambda told: told.event.id)]):
        await fold_in(pool, batch, recent=recent)
    assert len(await journalled(pool)) == 4
    assert await pool.fetchval("SELECT version FROM messages") == 3


async def test_new_messages_are_copied_straight_into_their_table_unless_somebody_else_was_met(
    open_pool: OpenPool,
) -> None:
    async def went_beside(pool: Pool) -> bool:
        beside = "SELECT count(*) > 0 FROM pg_class WHERE relname = 'batch_messages'"
        return await pool.fetchval(beside)

    now = 0.0
    recent = RecentFolds(1000, clock=lambda: now)
    told = [step for number in range(30) for step in Story(number).delivered()]
    pool, expected = await open_pool(), await open_pool()
    await fold_in(pool, told, recent=recent)
    assert recent.alone
    assert not await went_beside(pool)
    # Two events that are there among many that are not; then one that is twice in its batch.
    more = [step for number in range(100, 120) for step in Story(number).delivered()]
    await fold_in(pool, [*more[:40], told[0], told[5], *more[40:]], recent=recent)
    assert await went_beside(pool)
    assert not recent.alone
    now = 61.0
    assert recent.alone
    await fold_in(pool, [last := Story(200).requested(), last], recent=recent)
    assert recent.alone
    await fold_in(expected, [*told, *more, last])
    assert await said(pool) == await said(expected)


async def test_a_beginning_that_comes_after_its_end_is_nobody_elses(pool: Pool) -> None:
    told, recent = Story(1).delivered(), RecentFolds(10)
    await fold_in(pool, told[3:], recent=recent)
    await fold_in(pool, told[:3], recent=recent)
    assert recent.alone
    assert await pool.fetchval("SELECT version FROM messages") == 2
    assert len(await journalled(pool)) == len(told)


async def test_a_batch_that_fails_leaves_no_fold_in_memory(pool: Pool) -> None:
    told, recent = Story(1).delivered(), RecentFolds(10)
    await fold_in(pool, told[:1], recent=recent)
    broken = replace(told[1].event, id="not 32 digits of hex")
    with pytest.raises(BadRecord, match="no UUID"):
        await fold_in(pool, [told[1]._replace(event=broken)], recent=recent)
    await fold_in(pool, told[2:3], recent=recent)
    whole = new_fold(told[0].event)
    for _, _, event in (told[0], told[2]):
        apply(whole, event)
    assert decode_fold(await pool.fetchval("SELECT fold FROM messages")) == whole


async def test_a_batch_that_can_not_be_written_whole_is_not_written_at_all_and_comes_again(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut_off(connection: Connection, positions: Mapping[TopicPartition, Position]) -> None:
        await write(connection, positions)
        raise ConnectionResetError

    told, recent, write = Story(1).delivered(), RecentFolds(10), store.write_positions
    monkeypatch.setattr(store, "write_positions", cut_off)
    with pytest.raises(ConnectionResetError):
        await fold_in(pool, told[:3], recent=recent)
    monkeypatch.undo()
    assert not any((await dump(pool)).values())
    assert await pool.fetchval("SELECT count(*) FROM offsets") == 0
    await fold_in(pool, told, recent=recent)
    assert len(await journalled(pool)) == len(told)


async def test_what_is_folded_is_counted_by_type(pool: Pool) -> None:
    def counted() -> list[float]:
        return [EVENTS_FOLDED.labels(type_).collect()[0].samples[0].value for type_ in types]

    told = Story(1).delivered()
    types = list(dict.fromkeys(step.event.type for step in told))
    before = counted()
    await fold_in(pool, told)
    assert [after - former for after, former in zip(counted(), before, strict=True)] == [1, 1, 2]


async def test_replicas_that_apply_the_same_messages_at_once_lose_nothing(open_pool: OpenPool) -> None:
    told = stories(seed=3, messages=40)
    alone, shared = await open_pool(), await open_pool()
    await fold_in(alone, told)
    random = Random(3)
    # Each replica has some of the events for itself, and some together with others; all touch the same messages.
    shares = [random.sample(told, len(told) * 2 // 3) for _ in range(3)]
    shares[0] += [each for each in told if not any(each in share for share in shares)]
    await asyncio.gather(*(fold_in(shared, share, batch=random.randrange(5, 40)) for share in shares))
    assert await said(shared) == await said(alone)


async def test_a_fold_that_another_replica_moved_on_is_folded_onto_what_it_wrote(pool: Pool) -> None:
    told = Story(1).delivered()
    slow, quick = RecentFolds(10), RecentFolds(10)
    await fold_in(pool, told[:1], recent=slow)
    await fold_in(pool, told[1:3], recent=quick)
    await fold_in(pool, told[3:], recent=slow)
    row = await pool.fetchrow("SELECT status, version FROM messages")
    assert (row["status"], row["version"]) == ("delivered", 3)
    whole = new_fold(told[0].event)
    for _, _, event in told:
        apply(whole, event)
    assert decode_fold(await pool.fetchval("SELECT fold FROM messages")) == whole


@pytest.mark.parametrize("between", [False, True], ids=["", "with one between that was not prepared"])
@pytest.mark.parametrize("step", ["insert_messages", "write_messages"])
async def test_a_batch_prepared_onto_a_fold_that_was_never_stored_is_prepared_anew(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, step: str, between: bool
) -> None:
    told = Story(1).delivered()
    await fold_in(pool, told)  # another replica, all in one batch: version 1
    recent, prepared = RecentFolds(10), list[Prepared]()
    if step == "write_messages":
        recent.meet()
    first, second = records(told[:1]), records(told[2:3], 1)

    async def meanwhile(connection: Connection, rows: Iterable[MessageRow]) -> int:
        prepared.append(await prepare(second, pool=pool, recent=recent))
        return await write(connection, rows)

    write = getattr(store, step)
    monkeypatch.setattr(store, step, meanwhile)
    await apply_batch(pool, recent, first, {})  # believes that it writes version 1
    monkeypatch.undo()
    assert [each.row.version for each in prepared[0].to_write.values()] == [2]
    if between:  # half a batch: data was at fault
        await apply_batch(pool, recent, records(Story(2).delivered()[:1]), {})
    before = await dump(pool)
    await apply_batch(pool, recent, second, {}, prepared[0])
    assert await dump(pool) == before


async def test_rows_that_were_lost_are_written_again_by_themselves(pool: Pool) -> None:
    told = [step for number in range(3) for step in Story(number).delivered()[:2]]
    prepared = await prepare(records(told), pool=pool, recent=RecentFolds(10))
    rows = [each.row for each in prepared.to_write.values()]
    async with pool.acquire() as connection, connection.transaction():
        assert await store.write_messages(connection, rows) == 3
        await store.write_messages_again(connection, [msgspec.structs.replace(rows[1], version=2)])
        assert await connection.fetchval("SELECT count(*) FROM batch_messages") == 1
    assert await pool.fetchval("SELECT sum(version) FROM messages") == 4


async def test_an_event_that_comes_under_another_id_too_is_journalled_and_changes_nothing_else(pool: Pool) -> None:
    told = Story(1).delivered()
    await fold_in(pool, told)
    before = await said(pool)
    await fold_in(pool, [step._replace(event=replace(step.event, id=uuid4().hex)) for step in told], batch=2)
    after = await said(pool)
    assert len(after["events"]) == 2 * len(told)
    assert list(dict.fromkeys(after["personal"])) == before["personal"]  # the text is there twice
    assert await pool.fetchval("SELECT status FROM messages") == "delivered"


async def test_a_text_is_kept_also_where_its_number_is_known_already(pool: Pool) -> None:
    requested, dispatched, *_ = Story(1).delivered()
    await fold_in(pool, [dispatched])
    again = dispatched._replace(event=replace(dispatched.event, id=uuid4().hex))
    await fold_in(pool, [requested, again])
    rows = await pool.fetch("SELECT leg, phone, text FROM personal ORDER BY leg")
    assert [tuple(row) for row in rows] == [(0, None, Story(1).message.text), (1, Story(1).phone, None)]


async def test_a_row_that_was_lost_is_made_of_what_is_told_and_the_journal_keeps_no_event_twice(pool: Pool) -> None:
    told = Story(1).delivered()
    await fold_in(pool, told[:3], batch=2)
    await pool.execute("DELETE FROM messages")
    for batch in (told, told[3:], told[1:]):
        await fold_in(pool, batch)
        assert len(await journalled(pool)) == len(told)
    whole = new_fold(told[0].event)
    for _, _, event in told:
        apply(whole, event)
    assert decode_fold(await pool.fetchval("SELECT fold FROM messages")) == whole


async def test_an_entry_that_can_not_be_read_holds_nobody_up(pool: Pool) -> None:
    told = Story(1).delivered()
    await fold_in(pool, told[:2])
    await pool.execute("UPDATE events SET body = '\\x91cd7fff'")
    await fold_in(pool, told[2:])
    assert await pool.fetchval("SELECT status FROM messages") == "delivered"


async def test_what_was_prepared_is_written_and_the_next_batch_goes_on_from_it(pool: Pool) -> None:
    told, recent = Story(1).delivered(), RecentFolds(10)
    for offset, step in enumerate(told):
        ready = await prepare(records([step], offset), pool=pool, recent=recent)
        await apply_batch(pool, recent, [], {}, ready)
    assert await pool.fetchval("SELECT version FROM messages") == len(told)
    whole = new_fold(told[0].event)
    for _, _, event in told:
        apply(whole, event)
    assert decode_fold(await pool.fetchval("SELECT fold FROM messages")) == whole


async def test_a_message_of_another_tenant_under_the_same_id_is_another_message(pool: Pool) -> None:
    await fold_in(pool, [Story(1).requested(), Story(1, tenant="clinic").requested()])
    assert [row["tenant"] for row in await pool.fetch("SELECT tenant FROM messages ORDER BY 1")] == ["bank", "clinic"]


@pytest.mark.parametrize("way", ["unknown", "known", "request last"])
async def test_a_message_whose_id_is_written_in_two_ways_is_one_message(pool: Pool, way: str) -> None:
    told, recent = Story(0xABC).delivered(), RecentFolds(10)
    first, *others = records(told)
    if way == "known":
        await apply_batch(pool, recent, [first], {})
    batch, loud = ([first, *others], 1) if way == "unknown" else ([*others, first], 3 if way == "request last" else 1)
    shouted = str(told[0].event.subject).upper().encode()
    batch[loud] = msgspec.structs.replace(batch[loud], raw=(batch[loud].raw or b"").replace(shouted.lower(), shouted))
    for seen in (recent, RecentFolds(10)):
        await apply_batch(pool, seen, batch, {})
        whole = new_fold(told[0].event)
        for _, _, event in told:
            apply(whole, event)
        assert decode_fold(await pool.fetchval("SELECT fold FROM messages")) == whole
        assert len(await journalled(pool)) == len(told)


async def test_a_record_that_is_no_event_is_refused_and_nothing_is_written(pool: Pool) -> None:
    good, bad = records([Story(1).requested(), Story(2).requested()])
    for value in (None, b"{}", (bad.raw or b"")[:-9]):
        with pytest.raises(Undecodable):
            await apply_batch(pool, RecentFolds(10), [good, msgspec.structs.replace(bad, raw=value)], {})
    assert not any((await dump(pool)).values())


@pytest.mark.parametrize("batch", [1, 1000])
async def test_personal_data_is_in_its_own_table_only(pool: Pool, batch: int) -> None:
    story = Story(1)
    told = [story.requested(), story.dispatched(), story.returned()]
    story.phone = "+4915187654321"
    await fold_in(pool, [*told, story.dispatched()], batch)
    rows = await pool.fetch("SELECT cycle, leg, phone, person_name, text FROM personal ORDER BY cycle, leg")
    text = story.message.text
    assert [tuple(row) for row in rows] == [
        *([(1, 0, None, None, text)] if batch == 1 else []),
        (1, 1, "+4915112345678", "Ann Example", None if batch == 1 else text),
        (1, 2, "+4915187654321", "Ann Example", None),
    ]
    everything = await dump(pool)
    for table in ("events", "messages"):
        assert not any(word in str(everything[table]) for word in ("49151", "Ann", text))


async def test_an_id_without_a_time_is_refused_and_nothing_is_written(pool: Pool) -> None:
    story = Story(1)
    story.id = uuid4()
    with pytest.raises(BadRecord, match="UUIDv7"):
        await fold_in(pool, [Story(2).requested(), story.requested()])
    assert not any((await dump(pool)).values())
    assert await pool.fetchval("SELECT count(*) FROM offsets") == 0


async def test_a_row_written_again_stays_in_its_page(pool: Pool) -> None:
    """Otherwise each status would write to both indexes."""
    every = [Story(number).delivered() for number in range(600)]
    recent = RecentFolds(1000)
    for step in range(4):
        await fold_in(pool, [told[step] for told in every], recent=recent)
    await pool.execute("SELECT pg_stat_force_next_flush()")
    row = await pool.fetchrow(
        "SELECT sum(n_tup_upd)::int AS updates, sum(n_tup_hot_upd)::int AS in_page FROM pg_stat_user_tables"
        " WHERE relname LIKE 'messages\\_%'"
    )
    assert row["updates"] == 1800
    assert row["in_page"] > 0.85 * row["updates"]
    assert await pool.fetchval("SELECT count(*) FROM messages WHERE status = $1", Status.DELIVERED) == 600
