"""What the resolver needs to know at start."""

from __future__ import annotations

from libs.service_kit.settings import ConfiguredSettings, DatabaseSettings


class ResolverSettings(DatabaseSettings, ConfiguredSettings):
    """Postgres, Kafka and the configuration file."""
