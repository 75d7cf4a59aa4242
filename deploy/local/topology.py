"""The whole stack at a glance: which processes there are, and what each is told by its environment.

They start together, and each waits for what it needs. They stop in the reverse of the order here: what takes messages in stops
first, so that what carries them on can finish.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy import REPOSITORY
from deploy.local.ports import HOST, Ports
from deploy.local.supervisor import ProcessSpec
from libs.service_kit.config_file import Configuration, SmppGateway
from libs.service_kit.kafka import KafkaSettings

NICE = {"receipts": 4, "dispatcher": 6, "resolver": 8, "api_gateway": 10}
"""Where processors are short, what is further on goes first (docs/decisions/0018). By service; the others 0."""
KAFKA = tuple(name.upper() for name in KafkaSettings.model_fields)
SECRETS = ("POSTRIDER_API_KEY", "INTERNAL_TOKEN", "RECEIPTS_DESTINATION_KEY", "INBOUND_KEY")


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the processes of one stack share."""

    kafka: Mapping[str, str]  # how to reach it, by the names in KAFKA
    postgres_dsn: str
    config: Path
    directory: Path
    ports: Ports
    secrets: Mapping[str, str]  # by the names in SECRETS
    extra: Mapping[str, Mapping[str, str]]  # further environment by process name, "*" for all; for tests

    def common(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if name not in KAFKA},
            **self.kafka,
            "POSTGRES_DSN": self.postgres_dsn,
            "POSTRIDER_CONFIG": str(self.config.resolve()),
            "OPS_HOST": HOST,
            "POSTRIDER_API_KEY": self.secrets["POSTRIDER_API_KEY"],  # the configuration file refers to it
            "INTERNAL_TOKEN": self.secrets["INTERNAL_TOKEN"],
            **configuration_environment(self.ports),
        }

    def ops_url(self, process: str) -> str:
        return f"http://{HOST}:{self.ports.ops(process)}"


def configuration_environment(ports: Ports) -> dict[str, str]:
    """What a configuration file may refer to besides the API key."""
    return {"CARRIER_SMPP_PORT": str(ports["CARRIER_SMPP_PORT"])}


def uses_simulated_carrier(configuration: Configuration, ports: Ports) -> bool:
    here = {HOST, "localhost", "::1"}
    # Another type may have no host.
    smscs = (gateway for gateway in configuration.gateways if isinstance(gateway, SmppGateway))  # pyright: ignore[reportUnnecessaryIsInstance]
    return any(smsc.host in here and smsc.port == ports["CARRIER_SMPP_PORT"] for smsc in smscs)


def processes(around: Surroundings, configuration: Configuration) -> list[ProcessSpec]:
    """Everything but Kafka and PostgreSQL, what stops last first."""
    return [
        *([carrier(around)] if uses_simulated_carrier(configuration, around.ports) else []),
        _process(around, "projection", "projection"),
        _process(around, "receipts", "receipts", RECEIPTS_DESTINATION_KEY=around.secrets["RECEIPTS_DESTINATION_KEY"]),
        _process(around, "inbound", "inbound"),
        *(dispatcher(around, gateway.id, 1) for gateway in configuration.gateways),
        _process(around, "scheduler", "scheduler"),
        _process(around, "resolver", "resolver", PROJECTION_URL=around.ops_url("projection")),
        _process(
            around,
            "api-gateway",
            "api_gateway",
            API_HOST=HOST,
            API_PORT=str(around.ports["POSTRIDER_PORT"]),
            RESOLVER_URL=around.ops_url("resolver"),
            PROJECTION_URL=around.ops_url("projection"),
            INBOUND_URL=around.ops_url("inbound"),
        ),
    ]


def carrier(around: Surroundings) -> ProcessSpec:
    port = around.ports["CARRIER_HTTP_PORT"]
    return _process(
        around,
        "carrier",
        "simulated_carrier",
        CARRIER_HOST=HOST,
        CARRIER_HTTP_PORT=str(port),
        CARRIER_LEDGER_DIRECTORY=str((around.directory / "carrier").resolve()),
        ready_url=f"http://{HOST}:{port}/health/ready",
    )


def dispatcher_name(gateway: str, replica: int) -> str:
    return f"dispatcher-{gateway}-{replica}"


def dispatcher(around: Surroundings, gateway: str, replica: int) -> ProcessSpec:
    """One of the processes that send through a gateway, numbered from 1; `make scale` changes how many there are."""
    return _process(
        around,
        dispatcher_name(gateway, replica),
        "dispatcher",
        DISPATCHER_GATEWAY=gateway,
        INBOUND_KEY=around.secrets["INBOUND_KEY"],
    )


def required_ports(ports: Ports, configuration: Configuration) -> list[tuple[int, str, str]]:
    """(port, what listens there, the variable that moves it) of the processes that start first."""
    found = [(ports["POSTRIDER_PORT"], "the API", "POSTRIDER_PORT")]
    if uses_simulated_carrier(configuration, ports):
        for variable in ("CARRIER_SMPP_PORT", "CARRIER_HTTP_PORT"):
            found.append((ports[variable], "the simulated carrier", variable))
    dispatchers = (dispatcher_name(gateway.id, 1) for gateway in configuration.gateways)
    for name in ("projection", "receipts", "inbound", *dispatchers, "scheduler", "resolver", "api-gateway"):
        found.append((ports.ops(name), f"the health of {name}", Ports.OPS_BASE))
    return found


def command(service: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"services.{service}.main")


def _process(
    around: Surroundings, name: str, service: str, *, ready_url: str | None = None, **environment: str
) -> ProcessSpec:
    ops = {} if ready_url else {"OPS_PORT": str(around.ports.ops(name))}
    extra = {**around.extra.get("*", {}), **around.extra.get(name, {})}
    return ProcessSpec(
        name=name,
        command=command(service),
        environment={**around.common(), **ops, **environment, **extra},
        ready_url=ready_url or f"{around.ops_url(name)}/health/ready",
        directory=REPOSITORY,
        nice=NICE.get(service, 0),
    )
