"""Pages by key: ids are UUIDv7 and sort by time, so a page begins where the last ended and costs the same wherever that is."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from uuid import UUID


class BadCursor(ValueError):
    """The cursor is none that a page gave."""


def cursor_after(last: UUID) -> str:
    """What brings the page after the one that ended with this id."""
    return urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def position(cursor: str) -> UUID:
    """The id after which the page begins. Raises BadCursor."""
    try:
        position = UUID(bytes=urlsafe_b64decode(cursor + "=="))
    except ValueError:
        raise BadCursor from None
    if cursor_after(position) != cursor:
        raise BadCursor
    return position
