"""Trace context as CloudEvents carries it: one `traceparent` field in the envelope (W3C Trace Context, level 1)."""

from __future__ import annotations

from random import Random
from uuid import UUID

from libs.storage.uuids import uuid_of_hex

_ids = Random()  # noqa: S311 - ids need to be distinct, not secret; this is seeded from the system's entropy
_LENGTH = 55  # version-traceid-parentid-flags: 2 + 32 + 16 + 2 hex digits and three dashes


def new_traceparent() -> str:
    """The start of a trace, marked as sampled."""
    return f"00-{_ids.getrandbits(128):032x}-{_ids.getrandbits(64):016x}-01"


def child_of(traceparent: str | None) -> str:
    """The same trace with a new parent id; a new trace if there is none, or none of the form this version knows."""
    if traceparent is None or len(traceparent) != _LENGTH or not traceparent.startswith("00-"):
        return new_traceparent()
    return f"{traceparent[:36]}{_ids.getrandbits(64):016x}{traceparent[52:]}"


def trace_id_of(traceparent: str | None) -> UUID | None:
    """The trace's id, 128 bits; None if there is no trace, or none of the form this version knows."""
    if traceparent is None or len(traceparent) != _LENGTH or not traceparent.startswith("00-"):
        return None
    try:
        return uuid_of_hex(traceparent[3:35])
    except ValueError:
        return None


def traceparent_in(trace_id: UUID, event_id: str) -> str:
    """What an event of this trace carries, the same each time: its own id, 32 hex digits, gives the parent id. Marked as sampled."""
    return f"00-{trace_id.hex}-{event_id[:16]}-01"
