"""Pages by key: ids are UUIDv7 and sort by time, so a page begins where the last ended and costs the same wherever that is."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from uuid import UUID

from libs.contracts.message_ids import first_id


class BadCursor(ValueError):
    """The cursor is none that a page gave."""


def cursor_after(last: UUID) -> str:
    """The cursor by which the page is asked for that follows the one that ended with this id."""
    return urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def before(to: datetime | None, cursor: str | None) -> UUID | None:
    """The id that those of a page are less than, as the search's end and the cursor say; None if neither does. Raises BadCursor."""
    bounds = [first_id(to)] if to is not None else []
    if cursor is not None:
        bounds.append(_position(cursor))
    return min(bounds, default=None)


def _position(cursor: str) -> UUID:
    """The id of the message that the page before ended with."""
    try:
        position = UUID(bytes=urlsafe_b64decode(cursor + "=="))
    except ValueError:
        raise BadCursor from None
    if cursor_after(position) != cursor:
        raise BadCursor
    return position
