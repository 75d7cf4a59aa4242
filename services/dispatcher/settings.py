"""What a dispatcher needs to know; its gateway's own settings stand in the configuration file."""

from __future__ import annotations

from pydantic import Field, SecretStr

from libs.contracts.events import GatewayId
from libs.service_kit.settings import ConfiguredSettings, DatabaseSettings


class DispatcherSettings(DatabaseSettings, ConfiguredSettings):
    """One replica of one gateway's dispatchers."""

    dispatcher_gateway: GatewayId = Field(description="the id of the gateway in the configuration file")
    dispatcher_lease_seconds: float = Field(5, ge=2, le=60, description="how long a silent instance counts as alive")
    dispatcher_drain_seconds: float = Field(
        12,
        gt=0,
        le=30,
        description="how long answers are waited for at a stop or in a rebalance; below 40, the rebalance timeout",
    )
    dispatcher_most_legs: int = Field(
        4000, ge=100, le=100_000, description="records of a priority in hand before fetching pauses"
    )
    dispatcher_keep_days: int = Field(
        35,
        ge=21,
        description="how long attempts and marks are kept: longer than the topics, so that a replay sends nothing anew",
    )
    inbound_key: SecretStr = Field(
        SecretStr("postrider-inbound"), description="makes the Kafka key of an inbound message from its sender's number"
    )
