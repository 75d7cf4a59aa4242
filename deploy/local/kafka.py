"""Apache Kafka on this machine: one KRaft node as a child process, started from the jars that `make setup` fetched."""

import asyncio
import base64
import os
import shutil
import string
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from deploy import REPOSITORY
from deploy.local.ports import HOST, free_port, require_free
from deploy.local.prepare import KAFKA_JARS
from deploy.local.processes import Child, StartError, describe_exit

CLASS_ARCHIVE = KAFKA_JARS / "classes.jsa"  # made by deploy/local/kafka_archive.py; without it Kafka starts slower
SHORT_RUN = ("-XX:TieredStopAtLevel=1",)  # quicker to start, slower once warm: for tests


class Kafka:
    """A broker with its data in `directory`. Ports that are not given are found free and kept across restarts."""

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
        self.directory = directory
        self.port = port or free_port()
        self.controller_port = controller_port or free_port()
        self.log = log or directory / "kafka.log"
        self._java_options = java_options
        self._properties = properties  # further ones; they win
        self._format_options = format_options
        self._child: Child | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child and self._child.running else None

    async def start(self, *, ready_within: float = 120) -> None:
        """Start the broker and wait until it answers, at most `ready_within` seconds; `StartError` otherwise."""
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
        self._child = await self._java("kafka.Kafka", str(properties))
        await self._wait_until_ready(self._child, ready_within)

    async def stop(self, *, budget: float = 20) -> None:
        """Stop it cleanly; kill it after `budget` seconds."""
        if self._child:
            await self._child.stop(budget=budget)
            self._child = None

    async def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._child:
            await self._child.kill()
            self._child = None

    async def wait(self) -> int:
        """Return its exit code when it ends."""
        return await self._child.wait() if self._child else 0

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def __aenter__(self) -> "Kafka":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

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

    async def _wait_until_ready(self, child: Child, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while child.running:
            if await self._answers():
                return
            if time.monotonic() > deadline:
                await child.kill()
                raise StartError(f"Kafka was not ready after {seconds:.0f} s:\n{child.log_tail()}")
            await asyncio.sleep(0.1)
        raise StartError(f"Kafka ended while starting ({describe_exit(child.exit_code)}):\n{child.log_tail()}")

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
