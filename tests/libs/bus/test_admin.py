import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidTopicError
from structlog.testing import capture_logs

from libs.bus.admin import TopicMismatch, _usable, ensure_topics
from tests.conformance.bus_harness import Harness
from tests.waiting import until


async def partitions(bus: Harness, name: str) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=bus.bootstrap)
    await admin.start()
    (topic,) = await admin.describe_topics([name])
    await admin.close()
    return len(topic["partitions"])


async def config(bus: Harness, name: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bus.bootstrap)
    await admin.start()
    (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    await admin.close()
    return {entry[0]: entry[1] for entry in response.resources[0][4]}


async def test_topics_and_their_dead_letters_are_created_as_declared_and_usable_at_once(bus: Harness) -> None:
    one, two = bus.undeclared(partitions=3), replace(bus.undeclared(), retention_ms=1000)
    await ensure_topics(bus.cluster, [one, two])
    await bus.publish(one, "1")
    await bus.producer.publish(two.dead_letter, [(b"k", b"x")])
    assert [await partitions(bus, name) for name in (one.name, one.dead_letter, two.name)] == [3, 1, 1]
    of_one, of_two, of_letters = [await config(bus, name) for name in (one.name, two.name, two.dead_letter)]
    assert (of_one["cleanup.policy"], of_one["retention.ms"]) == ("delete", str(14 * 24 * 3600 * 1000))
    assert (of_two["cleanup.policy"], of_two["retention.ms"]) == ("delete", "1000")
    assert (of_letters["cleanup.policy"], of_letters["retention.ms"]) == ("delete", str(14 * 24 * 3600 * 1000))
    assert int(of_letters["max.message.bytes"]) > int(of_one["max.message.bytes"]) == 2 * 1024 * 1024


async def test_several_may_ask_for_the_same_topics_at_once_and_again(bus: Harness) -> None:
    topics = [bus.undeclared(), bus.undeclared(partitions=3)]
    await asyncio.gather(*(ensure_topics(bus.cluster, topics) for _ in range(4)))
    await ensure_topics(bus.cluster, topics)
    made = [await partitions(bus, name) for topic in topics for name in (topic.name, topic.dead_letter)]
    assert made == [1, 1, 3, 1]


async def test_what_the_cluster_refuses_for_good_is_not_asked_for_again(bus: Harness) -> None:
    with pytest.raises(InvalidTopicError, match="not/allowed could not be created"):
        async with asyncio.timeout(20):
            await ensure_topics(bus.cluster, [replace(bus.undeclared(), name="not/allowed")])


async def test_another_number_of_partitions_than_declared_is_refused(bus: Harness) -> None:
    topic = await bus.topic(partitions=2)
    other = bus.undeclared()
    with pytest.raises(TopicMismatch, match=rf"^{topic.name} has 2 partitions, and 4 are declared$"):
        await ensure_topics(bus.cluster, [other, replace(topic, partitions=4)])
    dead_letters = replace(other, name=other.dead_letter, partitions=3)
    await ensure_topics(bus.cluster, [dead_letters])
    with pytest.raises(TopicMismatch, match=rf"^{other.dead_letter} has 3 partitions, and 1 are declared$"):
        await ensure_topics(bus.cluster, [other])


async def make(bus: Harness, name: str, partitions: int, **config: str) -> None:
    """As somebody does who makes the topics himself."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bus.bootstrap)
    await admin.start()
    configs = {key.replace("_", "."): value for key, value in config.items()}
    await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=configs)])

    async def has_leaders() -> bool:
        return name in await _usable(admin)

    await until(has_leaders)
    await admin.close()


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
async def test_a_topic_that_is_compacted_and_must_not_be_is_refused(bus: Harness, policy: str) -> None:
    topic, other = bus.undeclared(), bus.undeclared()
    await make(bus, topic.name, topic.partitions, cleanup_policy=policy)
    with pytest.raises(TopicMismatch, match=rf"^{topic.name} has cleanup.policy={policy}, and delete is declared$"):
        await ensure_topics(bus.cluster, [other, topic])
    await ensure_topics(bus.cluster, [replace(topic, compactable=True)])
    await make(bus, other.dead_letter, 1, cleanup_policy=policy)
    with pytest.raises(TopicMismatch, match=rf"^{other.dead_letter} has "):
        await ensure_topics(bus.cluster, [other])


async def test_topics_that_keep_for_a_shorter_time_than_declared_are_named_in_one_warning(bus: Harness) -> None:
    short, long, endless = bus.undeclared(), bus.undeclared(), bus.undeclared()
    await make(bus, short.name, short.partitions, retention_ms=str(short.retention_ms - 1))
    await make(bus, long.name, long.partitions, retention_ms=str(long.retention_ms + 1))
    await make(bus, endless.name, endless.partitions, retention_ms="-1")
    await make(bus, long.dead_letter, 1, retention_ms="60000")
    with capture_logs() as logs:
        await ensure_topics(bus.cluster, [short, long, endless])
    (warning,) = [line for line in logs if line["log_level"] == "warning"]
    assert warning == {
        "event": "kafka.short_retention",
        "names": [short.name, long.dead_letter],
        "log_level": "warning",
    }


async def test_topics_with_fewer_replicas_than_the_cluster_could_keep_are_counted_in_one_warning(
    bus: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await bus.topic(), await bus.topic(partitions=3)
    describe_cluster = AIOKafkaAdminClient.describe_cluster

    async def grown(admin: AIOKafkaAdminClient) -> dict[str, Any]:
        cluster = await describe_cluster(admin)
        return {**cluster, "brokers": cluster["brokers"] * 3}

    with capture_logs() as logs:
        await ensure_topics(bus.cluster, [one, two])
        monkeypatch.setattr(AIOKafkaAdminClient, "describe_cluster", grown)
        await ensure_topics(bus.cluster, [one, replace(two, replication=1)])
    assert logs == [{"event": "kafka.too_few_replicas", "topics": 2, "brokers": 3, "log_level": "warning"}]
