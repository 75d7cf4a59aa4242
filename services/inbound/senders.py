"""The sender of a message from a handset, in the one form in which it is stored and searched for."""

from __future__ import annotations

from libs.phone_numbers.parse import NumberError, parse

_FEWEST_DIGITS = 8
"""Of a phone number with its country code; what is shorter is a short code."""


def sender_of(source: str, default_region: str | None) -> str:
    """E.164 where the source is a phone number; a short code or a name as it came.

    Carriers write an international number without its "+", so digits are read as one first, then as dialled in the region.
    """
    spellings = [source]
    if source.isascii() and source.isdigit():
        if len(source) < _FEWEST_DIGITS:
            return source
        spellings = ["+" + source, source]
    for spelling in spellings:
        try:
            return parse(spelling, default_region)
        except NumberError:
            continue
    return source
