"""Which Kafka, and how it lets us in: for every client of it, from the environment."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from libs.service_kit.tls import check_ca_file, show_certificate, tls_context

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are to the brokers (SASL)."""

    mechanism: Mechanism
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Kafka cluster as its clients see it."""

    bootstrap_servers: str
    tls: ssl.SSLContext | None = None
    login: Login | None = None

    def options(self) -> dict[str, Any]:
        """What each of aiokafka's clients is told: with the password, so never for a log."""
        told: dict[str, Any] = {"bootstrap_servers": self.bootstrap_servers}
        if self.tls:
            told |= {"security_protocol": "SSL", "ssl_context": self.tls}
        if login := self.login:
            told |= {
                "security_protocol": "SASL_SSL" if self.tls else "SASL_PLAINTEXT",
                "sasl_mechanism": login.mechanism,
                "sasl_plain_username": login.username,
                "sasl_plain_password": login.password,
            }
        return told


def _brokers(servers: str) -> str:
    for broker in servers.split(","):
        if not (named := _BROKER.fullmatch(broker.strip())) or not 1 <= int(named[1]) <= 65535:
            raise ValueError("must be host:port of one or more brokers, comma-separated")
    return servers


_BROKER = re.compile(r"(?:[^\s:;/\[\]]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")

KafkaServers = Annotated[str, AfterValidator(_brokers)]
"""`host:port`, comma-separated; an IPv6 address stands in brackets. Unchecked, a client would wait for ever for what can't be reached."""


class KafkaSettings(BaseSettings):
    """An empty variable counts as one that is not set, but for the brokers'."""

    model_config = SettingsConfigDict(extra="ignore")

    kafka_bootstrap_servers: KafkaServers = Field(
        "127.0.0.1:9092", description="host:port of one or more brokers, comma-separated"
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT",
        description="how the brokers are spoken to: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL. Without SSL nothing is encrypted,"
        " a password by PLAIN neither",
    )
    kafka_ca_file: Path | None = Field(
        None, description="with SSL: who may sign the brokers' certificates (PEM); else the system's authorities"
    )
    kafka_key_file: Path | None = Field(
        None, description="the key of our certificate (PEM, not encrypted), unless it stands in the same file"
    )
    kafka_certificate_file: Path | None = Field(
        None, description="with SSL: our certificate (PEM), where the brokers ask for one", validate_default=True
    )
    kafka_sasl_mechanism: Mechanism = Field(
        "SCRAM-SHA-512", description="with SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
    )
    kafka_sasl_username: str | None = Field(None, description="with SASL: who we are", validate_default=True)
    kafka_sasl_password: SecretStr | None = Field(None, description="and our password", validate_default=True)

    @field_validator(
        "kafka_security_protocol",
        "kafka_ca_file",
        "kafka_key_file",
        "kafka_certificate_file",
        "kafka_sasl_mechanism",
        "kafka_sasl_username",
        "kafka_sasl_password",
        mode="before",
    )
    @classmethod
    def _or_not_set(cls, given: object, info: ValidationInfo) -> object:
        assert info.field_name
        return cls.model_fields[info.field_name].default if given == "" else given

    @field_validator("kafka_ca_file", "kafka_key_file", "kafka_certificate_file")
    @classmethod
    def _with_tls(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        protocol, key = info.data.get("kafka_security_protocol"), info.data.get("kafka_key_file")
        if file and protocol and not protocol.endswith("SSL"):
            raise ValueError(f"is of no use, since KAFKA_SECURITY_PROTOCOL is {protocol}")
        if file and info.field_name == "kafka_ca_file":
            check_ca_file(file)
        if info.field_name == "kafka_certificate_file":
            if file:
                show_certificate(tls_context(), file, key)
            elif key:
                raise ValueError("must be set, since KAFKA_KEY_FILE is")
        return file

    @field_validator("kafka_sasl_username", "kafka_sasl_password")
    @classmethod
    def _with_sasl(cls, given: str | SecretStr | None, info: ValidationInfo) -> str | SecretStr | None:
        if protocol := info.data.get("kafka_security_protocol"):
            if protocol.startswith("SASL") and not given:
                raise ValueError(f"must be set, since KAFKA_SECURITY_PROTOCOL is {protocol}")
            if given and not protocol.startswith("SASL"):
                raise ValueError(f"is of no use, since KAFKA_SECURITY_PROTOCOL is {protocol}")
        return given

    @cached_property
    def kafka(self) -> Cluster:
        """The cluster, with what the files of certificates hold when it is first asked for. OSError or ValueError where one has gone."""
        tls = login = None
        if self.kafka_security_protocol.endswith("SSL"):
            tls = tls_context(self.kafka_ca_file)
            if self.kafka_certificate_file:
                show_certificate(tls, self.kafka_certificate_file, self.kafka_key_file)
        if self.kafka_sasl_username and self.kafka_sasl_password:
            password = self.kafka_sasl_password.get_secret_value()
            login = Login(self.kafka_sasl_mechanism, self.kafka_sasl_username, password)
        return Cluster(self.kafka_bootstrap_servers, tls, login)
