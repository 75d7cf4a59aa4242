"""What the inbound service needs to know."""

from __future__ import annotations

from pydantic import Field

from libs.service_kit.settings import ConfiguredSettings, DatabaseSettings
from libs.storage.retention import LONGEST_KEPT_DAYS


class InboundSettings(DatabaseSettings, ConfiguredSettings):
    inbound_keep_days: int = Field(
        400, ge=21, le=LONGEST_KEPT_DAYS, description="how long what handsets sent is kept; longer than the topics"
    )
    inbound_read_seconds: float = Field(
        5.0, gt=0, le=60, description="how long a read may take in PostgreSQL, its wait for a connection included"
    )
