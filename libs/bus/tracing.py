"""Trace context as CloudEvents carries it: one `traceparent` field in the envelope (W3C Trace Context, level 1)."""

from __future__ import annotations

from random import Random

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
