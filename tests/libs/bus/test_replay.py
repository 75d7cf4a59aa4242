"""Dead letters listed and sent back, on a real Kafka."""

from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import ConsumerRecord, TopicPartition

from deploy.dead_letters import run
from libs.bus.dead_letters import WITHOUT_CONTENT
from libs.bus.errors import PublishFailed
from libs.bus.port import Outgoing
from libs.bus.replay import DeadLetter, DeadLetterBox, UnknownDeadLetter, by_record, open_dead_letters
from libs.contracts.topics import Topic
from libs.service_kit.kafka import Cluster
from tests.conformance.bus_harness import Handled, Harness, change
from tests.waiting import until

ID = "019b30cb-7a50-7a55-9d3e-2b1f0c8e7a41"
NAMED = b'{"subject": "%s"}' % ID.encode()


@pytest.fixture
async def box(kafka: str) -> AsyncIterator[DeadLetterBox]:
    async with open_dead_letters(Cluster(kafka)) as box:
        yield box


async def dead(
    bus: Harness, box: DeadLetterBox, *values: bytes | None, groups: int = 1
) -> tuple[Topic, list[DeadLetter]]:
    """A topic of its own whose records all went to the dead letters, once for each of so many consumer groups."""
    topic = await bus.topic(partitions=2)
    await bus.producer.publish(topic.name, [(f"key {n}".encode(), value) for n, value in enumerate(values)])
    for group in range(1, groups + 1):
        stream = bus.stream([topic])
        await stream.start()
        while len(await bus.dead_letters(topic)) < group * len(values):
            await stream.getmany(timeout_ms=1000, max_records=10)
        await stream.stop()
    letters = await box.waiting(topic.name)
    assert len(letters) == groups * len(values)
    return topic, letters


async def sent(bus: Harness, topic: Topic) -> list[ConsumerRecord]:
    return [record for partition in (0, 1) for record in await bus.stored(topic.name, partition)]


async def test_they_are_listed_with_where_why_and_which_message(bus: Harness, box: DeadLetterBox) -> None:
    topic, letters = await dead(bus, box, NAMED, b"\xff secret +254700000001")
    assert {letter.id for letter in letters} == {f"{topic.name}/0:0", f"{topic.name}/0:1"}
    assert {letter.reason for letter in letters} == {"undecodable"}
    assert {str(letter.message_id) for letter in letters} == {ID, "None"}
    assert {letter.topic for letter in letters} == {topic.name}
    assert "254700000001" not in str(letters)
    assert set(letters) <= set(await box.waiting())
    assert await box.waiting(topic.dead_letter) == letters
    assert await box.waiting(topic.name, "undecodable") == letters
    assert await box.waiting(topic.name, "other") == []


async def test_one_goes_back_as_it_was_and_is_not_listed_again(bus: Harness, box: DeadLetterBox) -> None:
    topic, letters = await dead(bus, box, b"one", b"two", None)
    content = {letter.value: letter.key for letter in await bus.dead_letters(topic)}
    for letter in letters:
        assert await box.find(letter.id) == (letter, False)
        await box.replay([letter], bus.producer)
        letters_left = [other for other in letters if other.offset > letter.offset]
        assert {left.id for left in await box.waiting(topic.name)} >= {left.id for left in letters_left}
        assert letter.id not in {left.id for left in await box.waiting(topic.name)}
        assert await box.find(letter.id) == (letter, True)
    assert await box.waiting(topic.name) == []
    stored = await sent(bus, topic)
    assert sorted(str(r.value) for r in stored) == sorted(2 * [str(value) for value in content])
    assert {(r.value, r.key) for r in stored} == set(content.items())
    assert {tuple(r.headers) for r in stored} == {tuple(stored[0].headers)}


async def test_one_that_could_not_be_sent_back_is_still_listed(bus: Harness, box: DeadLetterBox) -> None:
    topic, letters = await dead(bus, box, b"one")

    class Refusing:
        async def publish(self, *_: object) -> None: ...

        async def publish_many(self, records: Sequence[Outgoing]) -> None:
            if any(record.topic == topic.name for record in records):
                raise PublishFailed
            await bus.producer.publish_many(records)

    with pytest.raises(PublishFailed):
        await box.replay(letters, Refusing())
    assert await box.waiting(topic.name) == letters


async def test_one_that_is_past_its_retention_is_neither_listed_nor_in_the_way(
    bus: Harness, box: DeadLetterBox
) -> None:
    topic, letters = await dead(bus, box, b"one", groups=2)
    admin = AIOKafkaAdminClient(bootstrap_servers=bus.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(topic.dead_letter, 0): RecordsToDelete(before_offset=1)})
    await admin.close()
    assert await box.waiting(topic.name) == letters[1:]
    with pytest.raises(UnknownDeadLetter, match="has passed its retention"):
        await box.replay(letters[:1], bus.producer)
    await box.replay(letters, bus.producer)
    assert [record.value for record in await sent(bus, topic)] == [b"one", b"one"]


async def test_one_that_was_too_large_to_be_kept_is_listed_and_holds_up_no_other(
    bus: Harness, box: DeadLetterBox, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = await bus.topic()
    async with AIOKafkaProducer(
        bootstrap_servers=bus.bootstrap, compression_type="gzip", max_request_size=1 << 23
    ) as p:
        await p.send_and_wait(topic.name, key=b"k", value=b"{" + b" " * 4_000_000)
    await bus.producer.publish(topic.name, [(b"k", b"bad"), change("good")])
    handled = Handled()
    await bus.consumer([topic], handled).start()
    await until(lambda: handled.names == ["good"])
    large, other = await box.waiting(topic.name)
    assert (large.reason, dict((await bus.dead_letters(topic))[0].headers)[WITHOUT_CONTENT]) == (
        "undecodable",
        b"4000002",
    )
    with pytest.raises(UnknownDeadLetter, match="too large to be kept"):
        await box.replay([large], bus.producer)
    with pytest.raises(SystemExit):
        await run(bus.cluster, topic.name, None, "all", False)
    printed = capsys.readouterr().out
    assert f"{large.id}: it was too large" in printed
    assert f"{other.id} replayed" in printed


async def test_one_that_is_not_there_is_named(bus: Harness, box: DeadLetterBox) -> None:
    topic, letters = await dead(bus, box, b"one")
    await box.replay(letters[:1], bus.producer)
    for wrong in ("nonsense", "no.such.topic/0:0", f"{topic.name}/0:99", f"{topic.name}/1:0", f"{topic.name}/0:1"):
        with pytest.raises(UnknownDeadLetter, match=wrong):
            await box.find(wrong)


async def test_a_second_replay_is_refused_unless_forced_and_all_needs_a_filter(
    bus: Harness, box: DeadLetterBox, kafka: str, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, letters = await dead(bus, box, b"one", b"two", b"three")
    await run(Cluster(kafka), topic.name, None, None, False)
    shown = capsys.readouterr().out
    assert all(letter.id in shown for letter in letters)
    assert "3 dead letters" in shown

    await run(Cluster(kafka), None, None, letters[0].id, False)
    with pytest.raises(SystemExit, match="FORCE=1"):
        await run(Cluster(kafka), None, None, letters[0].id, False)
    await run(Cluster(kafka), None, None, letters[0].id, True)
    with pytest.raises(SystemExit, match="REPLAY=all needs"):
        await run(Cluster(kafka), None, None, "all", False)
    await run(Cluster(kafka), topic.name, "undecodable", "all", False)
    assert await box.waiting(topic.name) == []
    assert len(await sent(bus, topic)) == 3 + 2 + 2


async def test_a_filter_that_fits_none_is_not_said_to_mean_that_there_are_none(
    bus: Harness, box: DeadLetterBox, kafka: str, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, _ = await dead(bus, box, b"one")
    await run(Cluster(kafka), topic.name, "misspelt", None, False)
    assert capsys.readouterr().out.endswith("There are no such dead letters.\n")


async def test_what_several_consumers_could_not_handle_goes_back_once(
    bus: Harness, box: DeadLetterBox, kafka: str, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, letters = await dead(bus, box, b"one", b"two", b"three", groups=3)
    one, *_ = by_record(letters)
    await run(Cluster(kafka), None, None, one[1].id, False)
    assert len(await sent(bus, topic)) == 3 + 1
    assert {letter.id for letter in await box.waiting(topic.name)} == {x.id for x in letters} - {x.id for x in one}
    with pytest.raises(SystemExit, match="FORCE=1"):
        await run(Cluster(kafka), None, None, one[0].id, False)

    await run(Cluster(kafka), topic.name, None, "all", False)
    assert sorted(record.value for record in await sent(bus, topic)) == sorted(2 * [b"one", b"two", b"three"])
    assert await box.waiting(topic.name) == []
    assert "2 replayed" in capsys.readouterr().out


async def test_a_record_for_which_one_consumer_has_the_reason_is_replayed_for_all(
    bus: Harness, box: DeadLetterBox, kafka: str
) -> None:
    topic, letters = await dead(bus, box, b"one", b"two", groups=2)
    letter, *_ = await bus.dead_letters(topic)
    headers = [(name, b"other" if name == "dead-letter-reason" else value) for name, value in letter.headers]
    await bus.producer.publish_many([Outgoing(topic.dead_letter, letter.key, letter.value, headers)])
    await run(Cluster(kafka), topic.name, "other", "all", False)
    assert [r.value for r in await sent(bus, topic)].count(letter.value) == 2
    [left] = by_record(await box.waiting(topic.name))
    assert len(left) == 2
    assert left[0].record not in {each.record for each in letters if each.offset == letter.offset}


async def test_what_lies_at_the_same_offset_of_a_topic_that_was_made_anew_is_another_record(
    bus: Harness, box: DeadLetterBox, kafka: str
) -> None:
    topic, _ = await dead(bus, box, b"one")
    [letter] = await bus.dead_letters(topic)
    await bus.producer.publish_many([Outgoing(topic.dead_letter, letter.key, b"new", letter.headers)])
    await run(Cluster(kafka), topic.name, None, "all", False)
    assert sorted(record.value for record in await sent(bus, topic)) == [b"new", b"one", b"one"]
