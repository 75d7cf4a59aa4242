"""What the resolver needs to know at start."""

from __future__ import annotations

from pydantic import Field, HttpUrl

from libs.service_kit.settings import ConfiguredSettings, DatabaseSettings
from libs.storage.retention import LONGEST_KEPT_DAYS


class ResolverSettings(DatabaseSettings, ConfiguredSettings):
    """Postgres, Kafka, the configuration file, and where the outbox is read."""

    projection_url: HttpUrl = Field(description="the projection's internal HTTP: it lists a person's queued messages")
    resolver_keep_days: int = Field(
        35,
        ge=21,
        le=LONGEST_KEPT_DAYS,
        description="how long decisions and cancellations are kept: longer than the topics, so that a replay decides nothing anew",
    )
