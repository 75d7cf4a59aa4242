"""UUIDs that cost little."""

from __future__ import annotations

from uuid import UUID

from asyncpg.pgproto.pgproto import UUID as CompiledUUID  # noqa: N811 - a name that says what it is


def quick_uuid(number: int) -> UUID:
    """The UUID with these 128 bits, of asyncpg's kind, which is compiled: to hash, compare, print or store the standard one costs
    several times as much, 1 µs where a row has it."""
    return CompiledUUID(number.to_bytes(16))


def uuid_of_hex(digits: str) -> UUID:
    """The UUID with these 32 hex digits, of the same kind. Raises ValueError for what is none."""
    return CompiledUUID(digits)
