"""One form for a provider's message ids, however its responses and its receipts write them."""

from __future__ import annotations

import enum
import re
from typing import Final

_HEX: Final = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,64})")
_DECIMAL: Final = re.compile(r"[0-9]{1,64}")


class IdFormat(enum.Enum):
    """How a provider writes an id. Declared per gateway, for responses and for receipts: many SMSCs answer submit_sm in
    hexadecimal and write the same number in decimal into the receipt."""

    DECIMAL = "decimal"
    HEX = "hex"
    TEXT = "text"


def normalise_id(raw: str, id_format: IdFormat) -> str:
    """The canonical form by which a response and a receipt find each other.

    DECIMAL and HEX give the number in decimal digits, so leading zeros, the case of digits and a "0x" don't matter. TEXT
    gives the id as it is. Space and NULs around an id never belong to it. An id that is no number of the declared format
    is kept as text: a provider that breaks its own rule still matches itself.
    """
    text = raw.strip(" \t\r\n\0")
    if id_format is IdFormat.DECIMAL and _DECIMAL.fullmatch(text):
        return text.lstrip("0") or "0"
    if id_format is IdFormat.HEX and (number := _HEX.fullmatch(text)):
        return str(int(number[1], 16))
    return text
