"""UUIDs for rows that are sent to PostgreSQL."""

from __future__ import annotations

from uuid import UUID

from asyncpg.pgproto.pgproto import UUID as SentUUID  # noqa: N811 - a name that says what it is for


def sent_uuid(number: int) -> UUID:
    """The UUID with these 128 bits, of asyncpg's own kind: the standard one makes its octets anew, 1 µs, wherever a row has it."""
    return SentUUID(number.to_bytes(16))
