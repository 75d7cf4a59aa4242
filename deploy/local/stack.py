"""A whole Postrider on this machine: Kafka, PostgreSQL, the simulated carrier and every service, as one object."""

import asyncio
import contextlib
import json
import os
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from deploy.local import topology
from deploy.local.kafka import Kafka
from deploy.local.ports import HOST, Ports, require_free
from deploy.local.postgres import Postgres
from deploy.local.server import LocalServer
from deploy.local.supervisor import ProcessSpec, Say, SupervisedProcess, Supervisor, keep_server_running
from libs.service_kit.config_file import Configuration, load_configuration

DATABASE = "postrider"


class Stack:
    """Start it, use it, stop it; all its data is in `directory`, and a later stack there goes on with it.

    Ports that are not given are found free. `kafka` (bootstrap servers) and `postgres_dsn` (an own, empty or earlier database) use
    existing servers. `extra` is further environment by process name, "*" for all.
    """

    def __init__(
        self,
        config: Path,
        directory: Path,
        *,
        ports: Ports | None = None,
        kafka: str | None = None,
        postgres_dsn: str | None = None,
        extra: Mapping[str, Mapping[str, str]] | None = None,
        java_options: Sequence[str] = (),
        say: Say = lambda _: None,
    ) -> None:
        self.config = config
        self.directory = directory
        self.ports = ports or Ports.free()
        self.broker: Kafka | None = None
        self.database: Postgres | None = None
        self._kafka_given = kafka
        self._postgres_given = postgres_dsn
        self._extra = extra or {}
        self._java_options = java_options
        self._say = say
        self._supervisor = Supervisor(directory / "logs", say)
        self._keepers: list[asyncio.Task[None]] = []
        self._scaling = asyncio.Lock()

    async def start(self, *, once: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """Start the servers, then all processes together, and return when all are ready; stop them all if one fails.

        `once` is environment by process name for the first start only: a process that dies is started again without it.
        Raises `StartError` (a taken port, a part that does not come up) or `ConfigFileError`.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self.secrets = _secrets(self.directory / "secrets.json")
        self.configuration = self._load_configuration()
        logs = self.directory / "logs"
        for log in logs.glob("*.log"):
            log.replace(log.with_suffix(".log.old"))
        try:
            self._require_free_ports()
            await self._start_servers(logs)
            await self._start_processes(once or {})
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop everything in reverse order, drained."""
        await self._supervisor.stop_all()
        for keeper in self._keepers:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
        self._keepers.clear()
        for server in (self.broker, self.database):
            if server and server.pid:
                async with self._step(f"{server.NAME} stopped"):
                    await server.stop()

    async def __aenter__(self) -> "Stack":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def processes(self) -> tuple[SupervisedProcess, ...]:
        return self._supervisor.processes

    def process(self, name: str) -> SupervisedProcess:
        """`carrier`, `projection`, `inbound`, `dispatcher-demo-1`, `scheduler`, `resolver` and the like; `KeyError` otherwise."""
        return self._supervisor.process(name)

    def dispatchers(self, gateway: str) -> list[SupervisedProcess]:
        """The gateway's dispatcher processes, by number."""
        mine = [p for p in self.processes if p.spec.environment.get("DISPATCHER_GATEWAY") == gateway]
        return sorted(mine, key=lambda p: int(p.spec.name.rpartition("-")[2]))

    async def scale(self, gateway: str, replicas: int) -> None:
        """Make it so many dispatcher processes; those with the highest numbers go first, drained.

        Raises `KeyError` if there is no such gateway.
        """
        async with self._scaling:
            self.configuration.gateway(gateway)
            running = len(self.dispatchers(gateway))
            for number in range(running + 1, replicas + 1):
                spec = topology.dispatcher(self._around, gateway, number)
                require_free(self.ports.ops(spec.name), f"the health of {spec.name}", variable=Ports.OPS_BASE)
                await self._start_process(spec)
            for number in range(running, replicas, -1):
                name = topology.dispatcher_name(gateway, number)
                async with self._step(f"{name} stopped"):
                    await self._supervisor.stop(name)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.ports['POSTRIDER_PORT']}"

    @property
    def api_key(self) -> str:
        return self.secrets["POSTRIDER_API_KEY"]

    @property
    def kafka(self) -> str:
        """The bootstrap servers."""
        return self._kafka_given or f"{HOST}:{self.ports['KAFKA_PORT']}"

    @property
    def postgres_dsn(self) -> str:
        if self._postgres_given:
            return self._postgres_given
        assert self.database, "known once the stack has started"
        return self.database.dsn(DATABASE)

    @property
    def has_carrier(self) -> bool:
        return topology.uses_simulated_carrier(self.configuration, self.ports)

    def environment(self) -> dict[str, str]:
        """How to reach everything, as variables for scripts and people."""
        found = {
            "POSTRIDER_URL": self.url,
            "POSTRIDER_API_KEY": self.api_key,
            **self._kafka_environment(),
            "POSTGRES_DSN": self.postgres_dsn,
        }
        if self.has_carrier:
            found["CARRIER_SMPP"] = f"{HOST}:{self.ports['CARRIER_SMPP_PORT']}"
            found["CARRIER_URL"] = f"http://{HOST}:{self.ports['CARRIER_HTTP_PORT']}"
        for process in self.processes:
            found[f"{process.spec.name.upper().replace('-', '_')}_HEALTH"] = process.spec.ready_url
        return found

    def _kafka_environment(self) -> dict[str, str]:
        """Of a Kafka that is given also how it lets us in."""
        said: Mapping[str, str] = os.environ if self._kafka_given else {}
        found = {name: value for name in topology.KAFKA if (value := said.get(name))}
        return found | {"KAFKA_BOOTSTRAP_SERVERS": self.kafka}

    @property
    def _around(self) -> topology.Surroundings:
        return topology.Surroundings(
            kafka=self._kafka_environment(),
            postgres_dsn=self.postgres_dsn,
            config=self.config,
            directory=self.directory,
            ports=self.ports,
            secrets=self.secrets,
            extra=self._extra,
        )

    def _load_configuration(self) -> Configuration:
        own = {**self.secrets, **topology.configuration_environment(self.ports)}
        return load_configuration(self.config, {**os.environ, **own})

    def _require_free_ports(self) -> None:
        if not self._kafka_given:
            require_free(self.ports["KAFKA_PORT"], "Kafka", variable="KAFKA_PORT")
            require_free(self.ports["KAFKA_CONTROLLER_PORT"], "Kafka's controller", variable="KAFKA_CONTROLLER_PORT")
        if not self._postgres_given:
            require_free(self.ports["POSTGRES_PORT"], "PostgreSQL", variable="POSTGRES_PORT")
        for port, what, variable in topology.required_ports(self.ports, self.configuration):
            require_free(port, what, variable=variable)

    async def _start_servers(self, logs: Path) -> None:
        if not self._postgres_given:
            self.database = Postgres(
                self.directory / "postgres", port=self.ports["POSTGRES_PORT"], log=logs / "postgres.log"
            )
            async with self._step(self.database.NAME):
                await self.database.start()
                await self.database.create_database(DATABASE)
            self._keep(self.database)
        if not self._kafka_given:
            self.broker = Kafka(
                self.directory / "kafka",
                port=self.ports["KAFKA_PORT"],
                controller_port=self.ports["KAFKA_CONTROLLER_PORT"],
                log=logs / "kafka.log",
                java_options=self._java_options,
            )
            async with self._step(self.broker.NAME):
                await self.broker.start()
            self._keep(self.broker)

    async def _start_processes(self, once: Mapping[str, Mapping[str, str]]) -> None:
        specs = topology.processes(self._around, self.configuration)
        starts = [asyncio.create_task(self._start_process(spec, once.get(spec.name))) for spec in specs]
        try:
            await asyncio.gather(*starts)
        except BaseException:  # the first failure ends the other starts
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            raise

    async def _start_process(self, spec: ProcessSpec, once: Mapping[str, str] | None = None) -> None:
        async with self._step(spec.name):
            await self._supervisor.start(spec, once=once)

    def _keep(self, server: LocalServer) -> None:
        keeping = keep_server_running(server, self._say)
        self._keepers.append(asyncio.create_task(keeping, name=f"keep {server.NAME}"))

    @contextlib.asynccontextmanager
    async def _step(self, name: str) -> AsyncGenerator[None]:
        started = time.monotonic()
        yield
        self._say(f"{time.monotonic() - started:5.1f} s  {name}")


def _secrets(file: Path) -> dict[str, str]:
    """The local stack's own keys: made on the first run and kept; the environment goes first."""
    kept: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    made = {name: f"local-{secrets.token_urlsafe(24)}" for name in topology.SECRETS}
    file.touch(mode=0o600)
    file.write_text(json.dumps({**made, **kept}))
    return {name: os.environ.get(name) or kept.get(name) or made[name] for name in topology.SECRETS}
