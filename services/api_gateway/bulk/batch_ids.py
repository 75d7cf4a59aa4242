"""The ids in a batch, derived from the batch's id, so that they need not be stored and a repeat finds the same."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import shake_128
from uuid import UUID

_ID_DIGITS = 15
_EVENT_DIGITS = 32
_BYTES = 24
"""Of the hash for each item: 15 digits for its id, 32 for its event's."""
_VARIANT = "89ab"


def batch_ids(batch_id: UUID, count: int) -> Iterator[tuple[str, str]]:
    """Message id and event id of the items, by their index (below 2^14).

    A message id is a UUIDv7 (RFC 9562 §5.7) with the batch id's millisecond, then 14 bits of index, so that ids ascend within the
    batch, then 60 bits of a hash of the batch id. The items' parts of that hash don't depend on how many there are.
    """
    digits = shake_128(batch_id.bytes).hexdigest(_BYTES * count)
    milliseconds = str(batch_id)[:13]
    for index in range(count):
        at = index * 2 * _BYTES
        own = digits[at : at + _ID_DIGITS]
        yield (
            f"{milliseconds}-7{index >> 2:03x}-{_VARIANT[index & 3]}{own[:3]}-{own[3:]}",
            digits[at + _ID_DIGITS : at + _ID_DIGITS + _EVENT_DIGITS],
        )
