"""From what travelled back to text: the header that joins parts, and the alphabets of SMPP's data_coding."""

from __future__ import annotations

from typing import Final, NamedTuple

from libs.smpp.pdus import ESM_CLASS_UDHI
from libs.sms_text.gsm import decode_gsm

_CONCATENATED_8_BIT: Final = 0x00
_CONCATENATED_16_BIT: Final = 0x08
# Single and locking shift tables, 3GPP TS 23.040 §9.2.3.24.15 and .16.
_NATIONAL_LANGUAGES: Final = (0x24, 0x25)

_GSM: Final = "gsm"
_UCS2: Final = "utf-16-be"
# SMPP 3.4 §5.2.19. The rest (binary, JIS, pictograms, …) has no text that we could show.
_SMPP: Final = {0: _GSM, 1: "ascii", 3: "latin-1", 6: "iso8859-5", 7: "iso8859-8", 8: _UCS2}
_GENERAL: Final = {0b00: _GSM, 0b10: _UCS2}
"""By the alphabet's two bits in 3GPP TS 23.038 §4; 01 is 8-bit data, 11 reserved."""


class Part(NamedTuple):
    """A short_message taken apart. One that stands alone is number 1 of 1."""

    octets: bytes  # without the user data header
    reference: int = 0
    total: int = 1
    number: int = 1
    national: bool = False
    """In the default alphabet, some characters are those of a national language's tables (3GPP TS 23.038 Annex A), which we don't have."""


def read_part(short_message: bytes, esm_class: int) -> Part:
    """The part that a short_message is (3GPP TS 23.040 §9.2.3.24.1 and .8). ValueError when esm_class announces a user
    data header that isn't whole, or the header numbers the part outside 1 to total."""
    if not esm_class & ESM_CLASS_UDHI:
        return Part(short_message)
    if not short_message or len(short_message) <= short_message[0]:
        raise ValueError("short_message: its user data header is cut off")
    end = 1 + short_message[0]
    part, position = Part(short_message[end:]), 1
    while position + 2 <= end:
        element, length = short_message[position], short_message[position + 1]
        value = short_message[position + 2 : min(position + 2 + length, end)]
        if (element, length, len(value)) in ((_CONCATENATED_8_BIT, 3, 3), (_CONCATENATED_16_BIT, 4, 4)):
            total, number = value[-2:]
            if not 1 <= number <= total:
                raise ValueError(f"short_message: its user data header says part {number} of {total}")
            part = part._replace(reference=int.from_bytes(value[:-2]), total=total, number=number)
        elif element in _NATIONAL_LANGUAGES and value != b"\0":
            part = part._replace(national=True)
        position += 2 + length
    return part


def is_text(data_coding: int, *, national: bool = False) -> bool:
    """Whether `decode_text` knows the alphabet; otherwise it keeps the octets as latin-1, which shows nothing that was written."""
    alphabet = _alphabet(data_coding)
    return alphabet is not None and not (alphabet == _GSM and national)


def decode_text(octets: bytes, data_coding: int) -> str:
    """The text of one whole message: join the octets of its parts in their order first, since other senders do split
    surrogate pairs. It never fails; what can't be read shows as U+FFFD."""
    alphabet = _alphabet(data_coding)
    return decode_gsm(octets) if alphabet == _GSM else octets.decode(alphabet or "latin-1", "replace")


def _alphabet(data_coding: int) -> str | None:
    """The codec, or None where there is no text. SMPP says what the values up to 15 mean, and 3GPP TS 23.038 §4 the others."""
    match data_coding >> 4:
        case 0:
            return _SMPP.get(data_coding)
        case 0b0001 | 0b0100 | 0b0101:  # general, not compressed: with a class, or marked for deletion
            return _GENERAL.get(data_coding >> 2 & 0b11)
        case 0b1100 | 0b1101:  # a message waits
            return _GSM
        case 0b1110:
            return _UCS2
        case 0b1111:  # with a class
            return None if data_coding & 0b100 else _GSM
        case _:  # compressed or reserved
            return None
