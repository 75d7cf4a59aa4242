"""Apache Kafka on this machine: one KRaft node as a child process, started from the jars that `make setup` fetched."""

import asyncio
import base64
import os
import shutil
import string
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from deploy import REPOSITORY
from deploy.local.ports import HOST, free_port, require_free
from deploy.local.prepare import KAFKA_JARS
from deploy.local.processes import Child, StartError
from deploy.local.server import LocalServer

CLASS_ARCHIVE = KAFKA_JARS / "classes.jsa"  # made by deploy/local/kafka_archive.py; without it Kafka starts slower
SHORT_RUN = ("-XX:TieredStopAtLevel=1",)  # quicker to start, slower once warm: for tests


class Kafka(LocalServer):
    """A broker that is its own controller. The controller's port is found free too if it is not given."""

    NAME: ClassVar = "Kafka"

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        controller_port: int | None = None,
        log: Path | None = None,
        java_options: Sequence[str] = (),
        properties: str = "",
        format_options: Sequence[str] = (),
    ) -> None:
        super().__init__(directory, port, log or directory / "kafka.log")
        self.controller_port = controller_port or free_port()
        self._java_options = java_options
        self._properties = properties  # further ones; they win
        self._format_options = format_options

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    async def _spawn(self) -> Child:
        if not KAFKA_JARS.is_dir():
            raise StartError(f"Kafka's jars are not in {KAFKA_JARS}: run `make setup`")
        require_free(self.port, "Kafka")
        require_free(self.controller_port, "Kafka's controller")
        properties = self._write_properties()
        formatted = self.directory / "formatted"  # written last: an interrupted format is done again
        if not formatted.exists():
            shutil.rmtree(self.directory / "data", ignore_errors=True)
            await self._format(properties)
            formatted.touch()
        return await self._java("kafka.Kafka", str(properties))

    def _write_properties(self) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        template = string.Template((REPOSITORY / "deploy/kafka/server.properties").read_text())
        text = template.substitute(
            listen=HOST,
            host=HOST,
            port=self.port,
            controller_port=self.controller_port,
            data=self.directory.resolve() / "data",
        )
        properties = self.directory / "server.properties"
        properties.write_text(text + self._properties)
        return properties

    async def _format(self, properties: Path) -> None:
        cluster_id = base64.urlsafe_b64encode(b"\1" + uuid.uuid4().bytes[1:]).decode().rstrip("=")  # no leading "-"
        arguments = (
            "format",
            "--cluster-id",
            cluster_id,
            "--config",
            str(properties),
            "--standalone",
            *self._format_options,
        )
        child = await self._java("kafka.tools.StorageTool", *arguments)
        try:
            code = await child.wait()
        finally:
            await child.kill()
        if code != 0:
            raise StartError(f"Kafka could not format {self.directory}:\n{child.log_tail()}")

    async def _java(self, main_class: str, *arguments: str) -> Child:
        java_home = os.environ.get("JAVA_HOME")
        java = f"{java_home}/bin/java" if java_home else shutil.which("java")
        if not java:
            raise StartError("no `java` on the PATH: run `make setup`")
        options = (
            "-Xmx384m",
            "-XX:+UseSerialGC",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={REPOSITORY / 'deploy/kafka/log4j2.properties'}",
            *((f"-XX:SharedArchiveFile={CLASS_ARCHIVE}", "-Xlog:cds=off") if CLASS_ARCHIVE.exists() else ()),
            *self._java_options,
        )
        jars = ":".join(sorted(map(str, KAFKA_JARS.glob("*.jar"))))  # in one order: the archive is bound to it
        return await Child.spawn((java, *options, "-cp", jars, main_class, *arguments), log=self.log)

    async def _answers(self) -> bool:
        """True once the broker has registered with the controller, so that topics can be created."""
        try:
            _, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        writer.close()
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=2000)
        try:
            await admin.start()
            return bool((await admin.describe_cluster())["brokers"])
        except (KafkaError, OSError, TimeoutError):
            return False
        finally:
            await admin.close()
