"""Creates the declared topics and their dead letters, and refuses to go on where the cluster holds something else."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from itertools import count
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from libs.contracts.topics import DAY_MS, Topic
from libs.service_kit.backoff import delays
from libs.service_kit.kafka import Cluster

log = structlog.get_logger()

DEAD_LETTER_PARTITIONS = 1  # rare, and read by people
_POLICY, _RETENTION = "cleanup.policy", "retention.ms"
_DEAD_LETTER_CONFIG = {
    _POLICY: "delete",
    _RETENTION: str(14 * DAY_MS),
    "retention.bytes": "-1",
    "max.message.bytes": str(3 * 1024 * 1024),  # the largest record, and what the headers add
}
_REQUEST_TIMEOUT_MS = 10_000
_POLL_SECONDS = 0.05
_SAID_AFTER_POLLS = 100


class TopicMismatch(Exception):
    """A topic exists with another number of partitions than declared, so keys would go elsewhere; or it is compacted and must not be,
    so records would be lost. Nothing may be published."""


async def ensure_topics(cluster: Cluster, topics: Sequence[Topic]) -> None:
    """Create what is missing of these topics and their dead letters; return when every partition has a leader.

    Waits for Kafka as long as it takes; may be called by several services at once. A small cluster gets as many replicas as it has
    brokers; one that has grown since is warned of, and so are topics made by others that keep for less long than declared. Raises
    `TopicMismatch`, or KafkaError where the cluster refuses.
    """
    for delay in delays():
        admin = AIOKafkaAdminClient(
            **cluster.options(), client_id="postrider-topics", request_timeout_ms=_REQUEST_TIMEOUT_MS
        )
        try:
            await admin.start()
            await _ensure(admin, topics)
            return
        except (KafkaError, OSError) as error:
            if isinstance(error, KafkaError) and not error.retriable:
                raise
            log.warning("kafka.topics_wait", error=type(error).__name__)
        finally:
            await admin.close()
        await asyncio.sleep(delay)


async def _ensure(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> None:
    brokers = len((await admin.describe_cluster())["brokers"])
    declared = {new.name: new for topic in topics for new in _with_dead_letters(topic, brokers)}
    found = await _usable(admin)
    for name, new in declared.items():
        if name in found and len(found[name]) != new.num_partitions:
            raise TopicMismatch(f"{name} has {len(found[name])} partitions, and {new.num_partitions} are declared")
    await _look_at_configs(
        admin,
        [new for name, new in declared.items() if name in found],
        {topic.name for topic in topics if topic.compactable},
    )
    if missing := [new for name, new in declared.items() if name not in found]:
        response = await admin.create_topics(missing, timeout_ms=_REQUEST_TIMEOUT_MS)
        for name, code, *_ in response.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(f"{name} could not be created")
        if created := sum(not code for _, code, *_ in response.topic_errors):
            log.info("kafka.topics_created", topics=created)
    for polls in count(1):
        if not (unled := declared.keys() - found.keys()):
            break
        if polls == _SAID_AFTER_POLLS:
            log.warning("kafka.topics_without_leader", names=sorted(unled))
        await asyncio.sleep(_POLL_SECONDS)
        found = await _usable(admin)
    few = sum(
        any(len(partition["replicas"]) < new.replication_factor for partition in found[name])
        for name, new in declared.items()
    )
    if few:  # made while other brokers were not there yet, and Kafka adds none by itself
        log.warning("kafka.too_few_replicas", topics=few, brokers=brokers)


async def _look_at_configs(admin: AIOKafkaAdminClient, there: Sequence[NewTopic], compactable: Collection[str]) -> None:
    """Compare the settings of topics that others may have made. Topics whose settings we may not read are passed over."""
    configs = await _configs(admin, [new.name for new in there])
    short: list[str] = []
    for new in there:
        if (config := configs.get(new.name)) is None:
            continue
        policy = config[_POLICY]
        if "compact" in policy and new.name not in compactable:
            raise TopicMismatch(f"{new.name} has {_POLICY}={policy}, and {new.topic_configs[_POLICY]} is declared")
        if "delete" in policy and 0 <= int(config[_RETENTION]) < int(new.topic_configs[_RETENTION]):  # -1: for ever
            short.append(new.name)
    if short:
        log.warning("kafka.short_retention", names=short)


async def _configs(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """The cleanup policy and retention of each topic whose settings we may read."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, name, dict.fromkeys((_POLICY, _RETENTION), "")) for name in names]
    return {
        name: {entry[0]: entry[1] for entry in entries}
        for response in await admin.describe_configs(asked)
        for code, _, _, name, entries in response.resources
        if code == 0
    }


def _with_dead_letters(topic: Topic, brokers: int) -> tuple[NewTopic, NewTopic]:
    """The topic and that of its dead letters, as a cluster of so many brokers can have them."""
    replication = max(1, min(topic.replication, brokers))
    in_sync = {"min.insync.replicas": "2"} if replication >= 3 else {}
    return (
        NewTopic(topic.name, topic.partitions, replication, topic_configs=topic.config() | in_sync),
        NewTopic(topic.dead_letter, DEAD_LETTER_PARTITIONS, replication, topic_configs=_DEAD_LETTER_CONFIG | in_sync),
    )


async def _usable(admin: AIOKafkaAdminClient) -> dict[str, list[dict[str, Any]]]:
    """The partitions of each topic that is usable. Asks for all: naming them might create them."""
    return {
        topic["topic"]: topic["partitions"]
        for topic in await admin.describe_topics()
        if topic["partitions"] and all(_has_leader(partition) for partition in topic["partitions"])
    }


def _has_leader(partition: dict[str, Any]) -> bool:
    return partition["error_code"] == 0 and partition["leader"] >= 0
