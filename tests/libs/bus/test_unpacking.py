from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from libs.bus.port import Outgoing
from libs.bus.record import CLOUDEVENTS, Record
from libs.bus.unpacking import as_records
from tests.conformance.bus_harness import Harness


async def test_records_are_ours_where_they_are_asked_for_and_aiokafkas_elsewhere(bus: Harness) -> None:
    topic = await bus.topic()
    place = TopicPartition(topic.name, 0)
    await bus.producer.publish_many(
        [
            Outgoing(topic.name, b"17", b"first"),
            Outgoing(topic.name, b"17", b"second"),
            Outgoing(topic.name, None, None, [("why", b"because")]),
        ]
    )
    async with AIOKafkaConsumer(bootstrap_servers=bus.bootstrap, value_deserializer=as_records) as consumer:
        consumer.assign([place])
        await consumer.seek_to_beginning()
        first: list[object] = (await consumer.getmany(timeout_ms=10_000, max_records=1))[place]
        rest: list[Record] = (await consumer.getmany(timeout_ms=10_000))[place]  # type: ignore[assignment]
    assert [*first, *rest] == [
        Record(place, 0, b"17", b"first", CLOUDEVENTS),
        Record(place, 1, b"17", b"second", CLOUDEVENTS),
        Record(place, 2, None, None, [("why", b"because")]),
    ]
    assert rest[0].headers is CLOUDEVENTS
    (theirs, *_) = await bus.stored(topic.name)
    assert isinstance(theirs, ConsumerRecord)
