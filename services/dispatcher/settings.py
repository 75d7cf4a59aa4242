"""What a dispatcher needs to know; its gateway's own settings stand in the configuration file."""

from __future__ import annotations

from pydantic import Field, model_validator

from libs.contracts.events import GatewayId
from libs.service_kit.settings import ConfiguredSettings, DatabaseSettings, FingerprintKey
from libs.storage.retention import LONGEST_KEPT_DAYS

CLOSING_SECONDS = 5.0
"""What a stop takes after the drain: to store the last answers, unbind and leave the consumer groups."""


class DispatcherSettings(DatabaseSettings, ConfiguredSettings):
    """One replica of one gateway's dispatchers."""

    dispatcher_gateway: GatewayId = Field(description="the id of the gateway in the configuration file")
    dispatcher_lease_seconds: float = Field(5, ge=2, le=60, description="how long a silent instance counts as alive")
    dispatcher_drain_seconds: float = Field(
        12,
        gt=0,
        le=30,
        description="how long answers are waited for at a stop or in a rebalance; 5 less than `DRAIN_BUDGET_SECONDS` at most",
    )
    dispatcher_most_legs: int = Field(
        4000, ge=100, le=100_000, description="records of a priority in hand before fetching pauses"
    )
    dispatcher_keep_days: int = Field(
        35,
        ge=21,
        le=LONGEST_KEPT_DAYS,
        description="how long attempts and marks are kept: longer than the topics, so that a replay sends nothing anew",
    )
    inbound_key: FingerprintKey = Field(
        description="16 to 64 octets: makes the Kafka key of an inbound message from its sender's number. The same for all"
        " dispatchers, or the parts of a long message may be handled in two places at once"
    )

    @model_validator(mode="after")
    def _check(self) -> DispatcherSettings:
        if self.dispatcher_drain_seconds + CLOSING_SECONDS > self.drain_budget_seconds:
            raise ValueError(
                f"DISPATCHER_DRAIN_SECONDS and {CLOSING_SECONDS:g} s for closing must fit into DRAIN_BUDGET_SECONDS"
            )
        return self
