"""A Kafka that lets in only whom it knows, by each way that there is: every client of ours gets in, and nobody with a wrong password."""

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError
from structlog.testing import capture_logs

from deploy.local.kafka import SHORT_RUN, Kafka
from deploy.local.ports import free_port
from libs.bus.event_consumer import EventConsumer
from libs.bus.group_progress import GroupProgress
from libs.bus.replay import open_dead_letters
from libs.contracts.events import ContactChanged, Event
from libs.service_kit.kafka import Cluster, KafkaSettings
from tests.certificates import made_certificate, needs_openssl
from tests.conformance.bus_harness import Handled, Harness
from tests.waiting import until

pytestmark = needs_openssl

USER, PASSWORD = "postrider", "a secret"
LISTENERS = {"SHOWN": "SSL", "ENCRYPTED": "SASL_SSL", "PLAIN": "SASL_PLAINTEXT"}
"""By name: what is spoken there. At SHOWN clients have a certificate."""
PROPERTIES = """
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port},{own}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port},{own}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,{protocols}
ssl.keystore.type=PEM
ssl.keystore.location={broker}
ssl.truststore.type=PEM
ssl.truststore.location={certificate}
listener.name.shown.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
"""
LOGINS = f"""
listener.name.{{name}}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";
listener.name.{{name}}.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{{name}}.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"""


@dataclass
class Secured:
    ports: dict[str, int]
    certificate: Path
    key: Path

    def cluster(self, listener: str, **settings: str | Path) -> Cluster:
        """As a service is told it."""
        protocol = LISTENERS[listener]
        told: dict[str, str | Path] = {
            "kafka_bootstrap_servers": f"127.0.0.1:{self.ports[listener]}",
            "kafka_security_protocol": protocol,
        }
        if protocol.endswith("SSL"):
            told["kafka_ca_file"] = self.certificate
        if protocol.startswith("SASL"):
            told |= {"kafka_sasl_username": USER, "kafka_sasl_password": PASSWORD}
        else:
            told |= {"kafka_certificate_file": self.certificate, "kafka_key_file": self.key}
        return KafkaSettings.model_validate(told | settings).kafka


@pytest.fixture(scope="module")
async def secured() -> AsyncIterator[Secured]:
    directory = Path(tempfile.mkdtemp(prefix="postrider-secured-"))
    certificate, _ = made_certificate(directory, "IP:127.0.0.1")
    key, broker = directory / "key.pem", directory / "broker.pem"
    broker.write_text(key.read_text() + certificate.read_text())
    made = Secured({listener: free_port() for listener in LISTENERS}, certificate, key)
    port, controller_port = free_port(), free_port()
    properties = PROPERTIES.format(
        port=port,
        controller_port=controller_port,
        own=",".join(f"{name}://127.0.0.1:{port}" for name, port in made.ports.items()),
        protocols=",".join(f"{name}:{protocol}" for name, protocol in LISTENERS.items()),
        broker=broker,
        certificate=certificate,
    )
    properties += "".join(LOGINS.format(name=name.lower()) for name in ("ENCRYPTED", "PLAIN"))
    scram = (f"SCRAM-SHA-{bits}=[name={USER},password={PASSWORD}]" for bits in (256, 512))
    kafka = Kafka(
        directory / "kafka",
        port=port,
        controller_port=controller_port,
        java_options=SHORT_RUN,
        properties=properties,
        format_options=[option for user in scram for option in ("--add-scram", user)],
    )
    async with kafka:
        yield made
    shutil.rmtree(directory)


Told = Callable[[Secured], Cluster]
WAYS: dict[str, Told] = {
    "a certificate": lambda secured: secured.cluster("SHOWN"),
    "PLAIN": lambda secured: secured.cluster("ENCRYPTED", kafka_sasl_mechanism="PLAIN"),
    "SCRAM-SHA-256": lambda secured: secured.cluster("ENCRYPTED", kafka_sasl_mechanism="SCRAM-SHA-256"),
    "SCRAM-SHA-512": lambda secured: secured.cluster("ENCRYPTED"),
    "not encrypted": lambda secured: secured.cluster("PLAIN"),
}


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def bootstrap(secured: Secured, request: pytest.FixtureRequest) -> Cluster:
    return request.param(secured)


async def test_every_client_is_let_in(bus: Harness) -> None:
    topic, group, handled = await bus.topic(), bus.group(), Handled()
    await bus.publish(topic, "1")
    await bus.producer.publish(topic.name, [(b"key", b"unreadable")])
    await bus.consumer([topic], handled, group).start()
    seen = asyncio.Event()

    async def see(event: Event[ContactChanged]) -> None:
        seen.set()

    events = EventConsumer(bus.cluster, topic, bus.group(), see, bus.producer)
    bus.running.append(events)
    await events.start()
    await asyncio.wait_for(seen.wait(), 20)
    await until(lambda: handled.names == ["1"])
    progress = GroupProgress(bus.cluster, group, [topic])
    bus.running.append(progress)
    await progress.start()
    async with asyncio.timeout(20):
        while await progress.behind(await progress.ends()):
            await asyncio.sleep(0.01)
    async with open_dead_letters(bus.cluster) as box, asyncio.timeout(20):
        while len(await box.waiting(topic.name)) < 2:  # one for each consumer
            await asyncio.sleep(0.01)


def without_a_certificate(secured: Secured) -> Cluster:
    return Cluster(f"127.0.0.1:{secured.ports['SHOWN']}", secured.cluster("ENCRYPTED").tls)


def trusting_others(secured: Secured) -> Cluster:
    return Cluster(f"127.0.0.1:{secured.ports['SHOWN']}", KafkaSettings(kafka_security_protocol="SSL").kafka.tls)


STRANGERS: dict[str, tuple[Told, str]] = {
    "a wrong password": (
        lambda secured: secured.cluster("ENCRYPTED", kafka_sasl_password="another"),
        "invalid credentials",
    ),
    "no certificate": (without_a_certificate, "bad certificate|certificate required"),
    "an authority that did not sign": (trusting_others, "certificate verify failed"),
}


@pytest.mark.parametrize(("told", "why"), STRANGERS.values(), ids=STRANGERS)
async def test_others_are_not_and_hear_why(secured: Secured, told: Told, why: str) -> None:
    progress = GroupProgress(told(secured), "strangers", [])
    with capture_logs() as logs, pytest.raises(KafkaConnectionError):
        await progress.start()
    await progress.stop()
    (said,) = [line for line in logs if line["event"] == "kafka.not_let_in"]
    assert re.search(why, said["why"])
    assert "another" not in str(logs)
