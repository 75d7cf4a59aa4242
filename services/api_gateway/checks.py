"""What is checked of a message beyond its form: that it fits, and that it is scheduled for a time to come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from libs.contracts.http.requests import MAX_SEGMENTS
from libs.service_kit.problems import bad_field
from libs.sms_text.segments import PART_UNITS, count_segments

MAX_AHEAD = timedelta(days=366)
_SURELY_FITS = MAX_SEGMENTS * (PART_UNITS - 1) // 2
"""Characters that fit whatever they are: two units each, and a unit of each segment lost where a pair is not split."""


def check_length(text: str) -> None:
    """Raises the problem 400 for a text of too many segments."""
    if len(text) <= _SURELY_FITS:
        return
    segments = count_segments(text)
    if segments > MAX_SEGMENTS:
        raise bad_field("message", f"needs {segments} segments; at most {MAX_SEGMENTS} are allowed")


def check_schedule(scheduled_at: datetime | None, now: datetime) -> datetime | None:
    """The time in UTC. Raises the problem 400 unless it lies in the future, and at most a year ahead."""
    if scheduled_at is None:
        return None
    if scheduled_at <= now:
        raise bad_field("scheduledAt", "must be in the future")
    if scheduled_at > now + MAX_AHEAD:
        raise bad_field("scheduledAt", "must be at most a year ahead")
    return scheduled_at.astimezone(UTC)
