"""What becomes of records that can't be read or handled, on the real broker and on the one in memory alike."""

import pytest

from libs.bus.batch import Batch
from libs.bus.codec import Decoders
from libs.bus.errors import INVALID, BadRecord, TooManyDeadLetters
from libs.bus.port import Outgoing
from libs.bus.record import Record
from libs.contracts.events import Reason
from tests.conformance.bus_harness import Handled, Harness, change, names
from tests.waiting import until


async def test_what_is_not_an_event_goes_to_the_dead_letters_unchanged_and_the_rest_is_handled(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    key, good = change("good")
    headers = [("content-type", b"text/plain"), ("x-origin", b"\x00\xff")]
    await bus.producer.publish_many([Outgoing(topic.name, b"some key", b"\xffnot json +4915112345678", headers)])
    await bus.producer.publish(topic.name, [(key, good)])
    handled = Handled()
    consumer = bus.consumer([topic], handled, group)
    await consumer.start()
    await until(lambda: handled.names == ["good"])
    await consumer.stop()
    assert await bus.committed(group, topic) == [2]
    (letter,) = await bus.dead_letters(topic)
    assert (letter.key, letter.value) == (b"some key", b"\xffnot json +4915112345678")
    assert list(letter.headers)[:2] == headers
    added = dict(list(letter.headers)[2:])
    assert added["dead-letter-reason"] == b"undecodable"
    assert added["dead-letter-words"] == b"JSON is malformed: invalid character (byte 0)"
    assert added["dead-letter-topic"] == topic.name.encode()
    assert (added["dead-letter-partition"], added["dead-letter-offset"]) == (b"0", b"0")
    assert added["dead-letter-group"] == group.encode()
    assert added["dead-letter-time"].startswith(b"20")


async def test_a_record_without_value_or_of_another_type_goes_to_the_dead_letters(bus: Harness) -> None:
    topic = await bus.topic()
    key, value = change("other")
    other = value.replace(b"postrider.contact.changed.v1", b"postrider.contact.changed.v2")
    await bus.producer.publish(topic.name, [(key, None), (key, other), change("good")])
    handled = Handled()
    await bus.consumer([topic], handled).start()
    await until(lambda: handled.names == ["good"])
    words = [dict(letter.headers)["dead-letter-words"] for letter in await bus.dead_letters(topic)]
    expected = b"Expected the event type `postrider.contact.changed.v1` - at `$.type`"
    assert words == [b"The record has no value", expected]


async def test_a_handler_may_read_the_events_itself_and_what_it_can_not_read_goes_to_the_dead_letters(
    bus: Harness,
) -> None:
    topic, group, read = await bus.topic(), bus.group(), list[str]()
    decoders = Decoders([topic])

    async def handle(batch: Batch) -> None:
        assert all(record.event is None for record in batch)
        read.extend([decoders[record.topic](record.raw).data.name for record in batch])

    await bus.producer.publish(topic.name, [change("a"), (b"k", b"\xff"), (b"k", None), change("b")])
    consumer = bus.consumer([topic], handle, group, decode=False)
    await consumer.start()
    await until(lambda: read == ["a", "b"])
    await consumer.stop()
    assert await bus.committed(group, topic) == [4]
    letters = await bus.dead_letters(topic)
    assert [dict(letter.headers)["dead-letter-words"] for letter in letters] == [
        b"JSON is malformed: invalid character (byte 0)",
        b"The record has no value",
    ]
    assert {dict(letter.headers)["dead-letter-reason"] for letter in letters} == {b"undecodable"}


async def test_a_batch_is_halved_until_the_poison_is_found_and_all_others_are_handled_in_order(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    await bus.publish(topic, *map(str, range(100)))
    handled = Handled()

    async def handle(batch: Batch) -> None:
        if {"13", "77"} & set(names(batch.records)):
            raise KeyError("+4915112345678")
        await handled(batch)

    consumer = bus.consumer([topic], handle, group)
    await consumer.start()
    await until(lambda: handled.names[-1:] == ["99"])
    await consumer.stop()
    assert handled.names == [str(n) for n in range(100) if n not in (13, 77)]
    assert await bus.committed(group, topic) == [100]
    letters = await bus.dead_letters(topic)
    assert [letter.value for letter in letters] == [change("13")[1], change("77")[1]]
    words = dict(letters[0].headers)["dead-letter-words"]
    assert words.startswith(b"KeyError in test_bus_dead_letters.py:")


async def test_a_handler_may_say_why_a_record_is_bad_and_a_service_hears_of_each_dead_letter(bus: Harness) -> None:
    topic = await bus.topic()
    heard: list[tuple[str, Reason]] = []
    reason = Reason("unknown-gateway", "The gateway is not configured")

    async def handle(batch: Batch) -> None:
        raise BadRecord(reason)

    async def on_dead_letter(record: Record, why: Reason) -> None:
        heard.append((record.event.data.name, why))
        raise KeyError("a hook's fault changes nothing")

    await bus.publish(topic, "1", "2")
    consumer = bus.consumer([topic], handle, on_dead_letter=on_dead_letter)
    await consumer.start()
    await until(lambda: len(heard) == 2)
    assert heard == [("1", reason), ("2", reason)]
    assert consumer.ready
    codes = [dict(letter.headers)["dead-letter-reason"] for letter in await bus.dead_letters(topic)]
    assert codes == [b"unknown-gateway", b"unknown-gateway"]


async def test_a_run_of_failures_stops_the_consumer_and_leaves_the_rest_uncommitted(bus: Harness) -> None:
    topic, group = await bus.topic(), bus.group()
    await bus.publish(topic, "bad", "bad", "good", *(f"bad {n}" for n in range(10)))

    async def handle(batch: Batch) -> None:
        if any(name != "good" for name in names(batch.records)):
            raise KeyError

    consumer = bus.consumer([topic], handle, group, dead_letter_limit=3)
    await consumer.start()
    await until(lambda: consumer.state == "stopped: too many dead letters")
    assert not consumer.ready
    await consumer.stop()
    assert consumer.state == "stopped: too many dead letters"
    assert await bus.committed(group, topic) == [6]
    assert len(await bus.dead_letters(topic)) == 2 + 3


async def test_failures_that_come_one_by_one_are_a_run_too(bus: Harness) -> None:
    topic, group, put_away = await bus.topic(), bus.group(), list[Record]()

    async def handle(batch: Batch) -> None:
        raise KeyError

    async def told(record: Record, _: Reason) -> None:
        put_away.append(record)

    consumer = bus.consumer([topic], handle, group, dead_letter_limit=3, on_dead_letter=told)
    await consumer.start()
    for n in range(1, 4):
        await bus.publish(topic, f"bad {n}")
        await until(lambda n=n: len(put_away) == n)
    await bus.publish(topic, "bad 4")
    await until(lambda: consumer.state == "stopped: too many dead letters")


async def test_a_run_of_undecodable_records_stops_the_stream_too(bus: Harness) -> None:
    topic, bad, good = await bus.topic(), (b"k", b"{"), 0
    stream = bus.stream([topic], dead_letter_limit=2)
    await stream.start()
    await bus.producer.publish(topic.name, [bad, bad, change("good"), bad, bad, change("good")])
    while good < 2:
        good += len(await stream.getmany(timeout_ms=2000, max_records=10))
    await bus.producer.publish(topic.name, [bad, bad, bad])
    with pytest.raises(TooManyDeadLetters):
        for _ in range(10):
            await stream.getmany(timeout_ms=2000, max_records=10)
    assert len(await bus.dead_letters(topic)) == 6


async def test_records_that_are_bad_in_themselves_stop_nobody_however_many_they_are(bus: Harness) -> None:
    topic, group, handled = await bus.topic(), bus.group(), Handled()

    async def handle(batch: Batch) -> None:
        if any(name.startswith("bad") for name in names(batch.records)):
            raise BadRecord(Reason("unknown-gateway", "The gateway is not configured"))
        if "broken" in names(batch.records):
            raise KeyError
        await handled(batch)

    await bus.publish(topic, *(f"bad {n}" for n in range(10)), "broken", "good")
    consumer = bus.consumer([topic], handle, group, dead_letter_limit=3)
    await consumer.start()
    await until(lambda: handled.names == ["good"])
    assert consumer.ready
    await consumer.stop()
    assert await bus.committed(group, topic) == [12]
    assert len(await bus.dead_letters(topic)) == 11


async def test_what_breaks_rules_of_ours_counts_also_when_a_handler_says_so(bus: Harness) -> None:
    topic = await bus.topic()

    async def handle(batch: Batch) -> None:
        raise BadRecord(Reason(INVALID, "leg_at: is not due_at"))

    await bus.publish(topic, *map(str, range(10)))
    consumer = bus.consumer([topic], handle, dead_letter_limit=3)
    await consumer.start()
    await until(lambda: consumer.state == "stopped: too many dead letters")
    assert len(await bus.dead_letters(topic)) == 3
