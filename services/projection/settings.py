"""What the projection needs to know."""

from __future__ import annotations

from pydantic import Field

from libs.service_kit.kafka import KafkaServers, KafkaSettings
from libs.service_kit.settings import ConfiguredSettings, DatabaseSettings, PostgresDsn
from libs.storage.retention import LONGEST_KEPT_DAYS


class ProjectionSettings(DatabaseSettings, ConfiguredSettings):
    postgres_connections: int = Field(
        5, ge=4, le=50, description="two for the fold, one on which replicas hurry each other, the rest for reads"
    )
    projection_recent_folds: int = Field(
        5_000, ge=0, description="messages whose folds are kept in memory, about 0.5 kB each"
    )
    projection_wait_seconds: float = Field(
        2.0, ge=0, le=30, description="how long a read of an unknown id waits for what Kafka held when it came"
    )
    projection_read_seconds: float = Field(
        5.0, gt=0, le=60, description="how long a read may take in PostgreSQL, its wait for a connection included"
    )
    projection_keep_days: int = Field(
        400,
        ge=380,
        le=LONGEST_KEPT_DAYS,
        description="how long messages, their history and their personal data are kept, from their acceptance on: longer than one"
        " may wait for its time (366 days) and then be sent (7)",
    )


class RebuildSettings(KafkaSettings):
    """For the work of an operator's hand, which is no service."""

    kafka_bootstrap_servers: KafkaServers = Field(description="host:port of one or more brokers, comma-separated")
    postgres_dsn: PostgresDsn = Field(description="postgresql://user:password@host:port/database")
