"""From what travelled back to text: the header that joins parts, and the alphabets of SMPP's data_coding."""

from __future__ import annotations

from typing import Final, NamedTuple

from libs.sms_text.gsm import decode_gsm
from libs.sms_text.segments import ESM_CLASS_UDHI, Encoding

_CONCATENATED_8_BIT: Final = 0x00
_CONCATENATED_16_BIT: Final = 0x08
# Single and locking shift tables, 3GPP TS 23.040 §9.2.3.24.15 and .16.
_NATIONAL_LANGUAGES: Final = (0x24, 0x25)

# SMPP 3.4 §5.2.19. The rest (binary, JIS, pictograms, …) has no text that we could show: latin-1 keeps its octets.
_CODECS: Final = {1: "ascii", 3: "latin-1", 6: "iso8859-5", 7: "iso8859-8", 8: "utf-16-be"}


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
    return data_coding in _CODECS or (_is_default_alphabet(data_coding) and not national)


def decode_text(octets: bytes, data_coding: int) -> str:
    """The text of one whole message: join the octets of its parts in their order first, since other senders do split
    pairs. It never fails; what can't be read shows as U+FFFD."""
    if _is_default_alphabet(data_coding):
        return decode_gsm(octets)
    return octets.decode(_CODECS.get(data_coding, "latin-1"), "replace")


def _is_default_alphabet(data_coding: int) -> bool:
    """0xF0 to 0xFF is the message-class group of 3GPP TS 23.038 §4: bit 2 tells 8-bit data from the default alphabet."""
    return data_coding == Encoding.GSM.value or data_coding & 0xF4 == 0xF0
