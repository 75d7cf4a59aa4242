"""Message ids: UUIDv7 (RFC 9562 §5.7), so that ids sort by the time of acceptance and storage can page and partition by them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from os import urandom
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION = 7 << 76
_VARIANT = 2 << 62
_TAIL_BITS = 74
"""Below the 48 bits of milliseconds, version and variant aside."""
_LAST_TAIL = (1 << _TAIL_BITS) - 1
_LAST_MS = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1) + 999
_JUMP_MS = 5 * 60_000
"""A clock that goes back further had been wrong before."""

_last_ms = 0
_last_tail = 0
_steps: Iterator[int] = iter(())


def new_message_id() -> UUID:
    """The next id; see `new_message_number`."""
    return UUID(int=new_message_number())


def new_message_number() -> int:
    """The next id as a number of 128 bits: greater than every one that this process made before, also within a millisecond or when the
    clock goes back a little.

    Within a millisecond the random tail grows by a random step (RFC 9562 §6.2, method 2). After a jump of the clock ids follow it back
    and are told from the earlier ones by the tail alone. Not for use in threads.
    """
    global _last_ms, _last_tail
    ms = time.time_ns() // 1_000_000
    if ms > _last_ms or ms < _last_ms - _JUMP_MS:
        _last_ms, _last_tail = ms, int.from_bytes(urandom(9))
    else:
        _last_tail += 1 + _random_step()
        if _last_tail > _LAST_TAIL:
            _last_ms, _last_tail = _last_ms + 1, int.from_bytes(urandom(9))
    high, low = _last_tail >> 62, _last_tail & ((1 << 62) - 1)
    return _last_ms << 80 | _VERSION | high << 64 | _VARIANT | low


def _random_step() -> int:
    """32 random bits, fetched from the system a thousand at a time: to ask it costs half of what an id does."""
    global _steps
    step = next(_steps, None)
    if step is None:
        _steps = iter(memoryview(urandom(4096)).cast("I"))
        step = next(_steps)
    return step


def is_message_id(message_id: UUID) -> bool:
    """Whether `time_of` can tell its time; costs a fifth of that."""
    number = message_id.int
    return number >> 76 & 0xF == 7 and number >> 80 <= _LAST_MS


def time_of(message_id: UUID) -> datetime:
    """When the message was accepted, in whole milliseconds. Raises ValueError for an id that is no UUIDv7, or of a year after 9999."""
    if not is_message_id(message_id):
        raise ValueError("not a UUIDv7, or its time is after the year 9999")
    return _EPOCH + timedelta(milliseconds=message_id.int >> 80)


def first_id(at: datetime) -> UUID:
    """The bound between the ids of what was accepted before a moment and of what was accepted at it or later; no message's id itself. Ids
    know whole milliseconds, from 1970 on."""
    milliseconds = -((_EPOCH - at) // timedelta(milliseconds=1))  # rounded up
    return UUID(int=max(0, milliseconds) << 80)


def moment_of(bound: UUID) -> datetime:
    """The moment whose `first_id` this is."""
    return _EPOCH + timedelta(milliseconds=bound.int >> 80)
