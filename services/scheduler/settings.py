"""What the scheduler needs to know."""

from __future__ import annotations

from pydantic import Field

from libs.service_kit.settings import DatabaseSettings
from libs.storage.retention import LONGEST_KEPT_DAYS


class SchedulerSettings(DatabaseSettings):
    scheduler_rows_per_second: int = Field(
        5_000, ge=1, le=100_000, description="how many due messages one replica returns in a second at most"
    )
    scheduler_waiting_records: int = Field(
        5_000,
        ge=1,
        le=1_000_000,
        description="how many returned messages of normal priority may wait for the resolver; while it is that many, no more are returned",
    )
    scheduler_lease_seconds: float = Field(
        10.0,
        gt=0,
        le=600,
        description="after this long a message that is leaving is taken over from a replica that died",
    )
    scheduler_keep_days: int = Field(
        35,
        ge=21,
        le=LONGEST_KEPT_DAYS,
        description="how long what is done is remembered: as long as attempts and decisions are",
    )
