"""Settings from the environment: one class per service, every problem listed at start."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, PostgresDsn, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


def _fits(key: SecretStr) -> SecretStr:
    if not 16 <= len(key.get_secret_value().encode()) <= 64:
        raise ValueError("must be 16 to 64 octets")
    return key


FingerprintKey = Annotated[SecretStr, AfterValidator(_fits)]
"""The key of fingerprints of phone numbers (`libs.phone_numbers.privacy.fingerprint`): 16 to 64 octets."""


class ServiceSettings(BaseSettings):
    """What every service needs to know. Units stand in the names."""

    model_config = SettingsConfigDict(extra="ignore")

    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092", description="host:port of one or more brokers, comma-separated"
    )
    ops_host: str = Field("127.0.0.1", description="address of the service's own health, metrics and internal API")
    ops_port: int = Field(ge=0, le=65535, description="its port; 0 picks a free one")
    internal_token: SecretStr = Field(
        description="shared by the services: opens their internal API to each other", min_length=16
    )
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="what is logged: DEBUG, INFO, WARNING or ERROR"
    )
    drain_budget_seconds: float = Field(20, gt=0, description="how long a stop may take before the process ends hard")


class DatabaseSettings(ServiceSettings):
    """For a service that remembers something."""

    postgres_dsn: PostgresDsn = Field(description="postgresql://user:password@host:port/database")
    postgres_connections: int = Field(3, ge=1, le=50, description="how many the service opens at most")


class ConfiguredSettings(ServiceSettings):
    """For a service that reads the gateways and keys from the configuration file."""

    postrider_config: Path = Field(description="the YAML file with gateways and API keys")


S = TypeVar("S", bound=BaseSettings)


def load_settings(cls: type[S]) -> S:
    """The settings, or an end of the process with every problem on its own line (exit status 2)."""
    try:
        return cls()
    except ValidationError as error:
        print(f"{cls.__name__}: the environment is not right", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        for problem in error.errors(include_input=False, include_url=False):
            variable = "_".join(str(x) for x in problem["loc"]).upper()
            print(f"  {variable}{': ' if variable else ''}{problem['msg']}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
