import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from deploy import REPOSITORY
from deploy.local.kafka import SHORT_RUN, Kafka
from deploy.local.ports import PortTakenError
from deploy.local.processes import StartError
from libs.contracts.topics import STATUS


@pytest.fixture(scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kafka]:
    async with Kafka(tmp_path_factory.mktemp("kafka"), java_options=SHORT_RUN) as kafka:
        yield kafka


async def create_topic(kafka: Kafka, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def publish(kafka: Kafka, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all") as producer:
        await producer.send_and_wait(topic, value)


async def read_one(kafka: Kafka, topic: str) -> bytes | None:
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        return (await consumer.getone()).value


async def test_what_was_published_is_there_after_a_restart(broker: Kafka) -> None:
    await create_topic(broker, "kept")
    await publish(broker, "kept", b"event")
    await broker.restart()
    assert await read_one(broker, "kept") == b"event"


async def test_what_was_published_is_there_after_a_kill(broker: Kafka) -> None:
    await create_topic(broker, "kept-after-kill")
    await publish(broker, "kept-after-kill", b"event")
    await broker.kill()
    assert broker.pid is None
    await broker.start()
    assert await read_one(broker, "kept-after-kill") == b"event"


async def test_a_first_start_that_was_interrupted_begins_afresh(tmp_path: Path) -> None:
    kafka = Kafka(tmp_path, java_options=SHORT_RUN)
    await kafka._format(kafka._write_properties())
    assert not (tmp_path / "formatted").exists()
    async with kafka:
        await create_topic(kafka, "afresh")


async def test_a_topic_that_nobody_declared_is_not_made(broker: Kafka) -> None:
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, request_timeout_ms=500) as producer:
        with pytest.raises(KafkaError):
            await producer.send_and_wait("typing-error", b"event")


async def test_a_port_that_is_taken_is_named(tmp_path: Path, broker: Kafka) -> None:
    with pytest.raises(PortTakenError, match=f"port {broker.port} .* Kafka is taken"):
        await Kafka(tmp_path, port=broker.port).start()


async def test_a_broker_that_ends_while_starting_shows_its_log(tmp_path: Path) -> None:
    (tmp_path / "formatted").touch()  # it is not
    with pytest.raises(StartError, match=r"(?s)ended while starting.*meta\.properties"):
        await Kafka(tmp_path, java_options=SHORT_RUN).start()


def test_where_a_group_has_read_to_is_remembered_for_longer_than_what_it_reads() -> None:
    properties = (REPOSITORY / "deploy/kafka/server.properties").read_text()
    [minutes] = re.findall(r"^offsets\.retention\.minutes=(\d+)$", properties, flags=re.MULTILINE)
    assert int(minutes) * 60_000 > STATUS.retention_ms
