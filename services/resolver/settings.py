"""What the resolver needs to know at start."""

from __future__ import annotations

from pydantic import Field

from libs.service_kit.settings import ConfiguredSettings, DatabaseSettings


class ResolverSettings(DatabaseSettings, ConfiguredSettings):
    """Postgres, Kafka and the configuration file."""

    resolver_keep_days: int = Field(
        35,
        ge=21,
        description="how long decisions are kept: longer than the topics, so that a replay decides nothing anew",
    )
