"""What an acceptance rests on: every copy in sync has a record before it is acknowledged, and one broker may be lost."""

from typing import Any

import pytest

from libs.bus import admin, producer_connection
from libs.bus.producer import Producer
from libs.contracts import topics
from libs.service_kit.kafka import Cluster


class Connected:
    """In the place of aiokafka's producer: remembers what it was asked to be."""

    asked: dict[str, Any]

    def __init__(self, **asked: Any) -> None:
        type(self).asked = asked

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


async def test_what_is_published_is_acknowledged_by_all_and_repeated_without_doubles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(producer_connection, "AIOKafkaProducer", Connected)
    producer = Producer(Cluster("unused"), "test")
    await producer.start()
    await producer.stop()
    assert (Connected.asked["acks"], Connected.asked["enable_idempotence"]) == ("all", True)


@pytest.mark.parametrize(("brokers", "replication", "in_sync"), [(1, 1, None), (2, 2, None), (3, 3, "2"), (5, 3, "2")])
def test_a_topic_has_three_copies_where_there_are_as_many_brokers_and_two_must_acknowledge(
    brokers: int, replication: int, in_sync: str | None
) -> None:
    for topic in topics.FIXED_TOPICS:
        for created in admin._with_dead_letters(topic, brokers):
            assert created.replication_factor == replication
            assert created.topic_configs.get("min.insync.replicas") == in_sync
