"""Settings from the environment: one class per service, every problem listed at start."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

from pydantic import AfterValidator, Field, SecretStr, UrlConstraints, ValidationError
from pydantic_core import MultiHostUrl
from pydantic_settings import BaseSettings

from libs.service_kit.config_file import ConfigFileError, Configuration, load_configuration
from libs.service_kit.kafka import KafkaSettings


def _fits(key: SecretStr) -> SecretStr:
    if not 16 <= len(key.get_secret_value().encode()) <= 64:
        raise ValueError("must be 16 to 64 octets")
    return key


def _fits_a_header(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~][ -~]*[!-~]", token.get_secret_value()):
        raise ValueError("must be of printable ASCII characters, without blanks at its ends")
    return token


Host = Annotated[str, Field(min_length=1)]
"""An address to listen on. An empty one would mean all that the machine has."""

FingerprintKey = Annotated[SecretStr, AfterValidator(_fits)]
"""The key of fingerprints of phone numbers (`libs.phone_numbers.privacy.fingerprint`): 16 to 64 octets."""


PostgresDsn = Annotated[MultiHostUrl, UrlConstraints(host_required=True, allowed_schemes=["postgres", "postgresql"])]
"""The schemes that asyncpg takes; pydantic's own type lets through those of SQLAlchemy too."""


class ServiceSettings(KafkaSettings):
    """What every service needs to know. Units stand in the names."""

    ops_host: Host = Field("127.0.0.1", description="address of the service's own health, metrics and internal API")
    ops_port: int = Field(ge=0, le=65535, description="its port; 0 picks a free one")
    internal_token: Annotated[SecretStr, AfterValidator(_fits_a_header)] = Field(
        description="shared by the services: opens their internal API to each other", min_length=16
    )
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="what is logged: DEBUG, INFO, WARNING or ERROR"
    )
    drain_budget_seconds: float = Field(
        20, gt=0, description="how long a stop may take to finish what is in hand; 5 s later the process ends hard"
    )


class DatabaseSettings(ServiceSettings):
    """For a service that remembers something."""

    postgres_dsn: PostgresDsn = Field(description="postgresql://user:password@host:port/database")
    postgres_connections: int = Field(3, ge=1, le=50, description="how many the service opens at most")


class ConfiguredSettings(ServiceSettings):
    """For a service that reads the gateways and keys from the configuration file."""

    postrider_config: Path = Field(description="the YAML file with gateways and API keys")


S = TypeVar("S", bound=BaseSettings)
C = TypeVar("C", bound=ConfiguredSettings)


def load_settings(cls: type[S]) -> S:
    """The settings, or an end of the process with every problem on its own line (exit status 2)."""
    problems: list[str] = []
    return _read(cls, problems) or _end(cls, problems)


def load_configured(cls: type[C]) -> tuple[C, Configuration]:
    """The settings and what their configuration file says, or an end as that of `load_settings`, with every problem of both."""
    problems: list[str] = []
    settings, configuration = _read(cls, problems), None
    if path := settings.postrider_config if settings else os.environ.get("POSTRIDER_CONFIG"):
        try:
            configuration = load_configuration(Path(path))
        except ConfigFileError as error:
            problems += str(error).splitlines()
    if settings is None or configuration is None:
        _end(cls, problems)
    return settings, configuration


def _read(cls: type[S], problems: list[str]) -> S | None:
    try:
        return cls()
    except ValidationError as error:
        problems += _problems(cls, error)
        return None


def _problems(cls: type[BaseSettings], error: ValidationError) -> Iterator[str]:
    """Each with its variable, and where in that it is."""
    prefix = cls.model_config.get("env_prefix", "")
    for problem in error.errors(include_input=False, include_url=False):
        words = problem["msg"].removeprefix("Value error, ")
        if problem["loc"]:
            variable, *inside = map(str, problem["loc"])
            words = f"{'.'.join((prefix + variable.upper(), *inside))}: {words}"
        yield words


def _end(cls: type[BaseSettings], problems: Iterable[str]) -> NoReturn:
    print(f"{cls.__name__}: these settings are not right", *problems, sep="\n  ", file=sys.stderr)  # noqa: T201 - logging is not set up yet
    raise SystemExit(2)
