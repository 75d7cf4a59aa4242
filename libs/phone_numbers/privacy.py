"""Numbers without the number: what may be compared."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

_COMPARED_DIGITS: Final = 8
"""Enough to tell two numbers apart, few enough that "+254…", "00254…", "254…" and the national form agree."""


def fingerprint(number: str, key: bytes) -> bytes:
    """8 octets by which two spellings of one number are known as the same, without keeping it: keyed BLAKE2b of the last 8
    digits. The key (16 to 64 octets) is what protects the number: there are only 10^8 such endings.

    ValueError when the key has another length.
    """
    if not 16 <= len(key) <= 64:
        raise ValueError("key: must be 16 to 64 octets")
    ending = number[-_COMPARED_DIGITS:]
    if len(ending) < _COMPARED_DIGITS or not (ending.isascii() and ending.isdigit()):
        ending = _digits(number)[-_COMPARED_DIGITS:]
    keyed = _keyed(key).copy()  # at half the cost of a new one
    keyed.update(ending.encode())
    return keyed.digest()


@lru_cache(maxsize=8)
def _keyed(key: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=8, key=key)


def _digits(number: str) -> str:
    return "".join(char for char in number if char.isascii() and char.isdigit())
