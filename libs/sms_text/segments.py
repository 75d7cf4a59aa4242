"""From a text to the segments that travel: which alphabet, how many, and their octets as SMPP carries them.

A segment is the unit that providers bill. It holds 140 octets on the air (3GPP TS 23.040 §9.2.3.24): 160 septets or 70
UCS-2 units. Several that belong together each begin with a header of 7 octets (§9.2.3.24.8, 16-bit reference), which leaves
152 septets (the header takes exactly 8) or 66 units.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from libs.smpp.pdus import ESM_CLASS_UDHI
from libs.sms_text.gsm import ESCAPE, decode_gsm, encode_gsm

SINGLE_SEPTETS: Final = 160
PART_SEPTETS: Final = 152
SINGLE_UNITS: Final = 70
PART_UNITS: Final = 66
MAX_SEGMENTS: Final = 255


class _Encoding(enum.Enum):
    """How a text is encoded; the value is SMPP's data_coding (SMPP 3.4 §5.2.19)."""

    GSM = 0
    UCS2 = 8


class Alphabet(enum.StrEnum):
    """A provider's default alphabet: what the octets of data_coding 0 mean to it. On the air such a text is GSM all the same."""

    GSM = "gsm"
    LATIN1 = "latin1"
    ASCII = "ascii"


class Segment(msgspec.Struct, frozen=True, gc=False):
    """One segment, ready for submit_sm."""

    short_message: bytes  # user data header included
    esm_class: int
    data_coding: int


def needs_ucs2(text: str, alphabet: Alphabet = Alphabet.GSM) -> bool:
    """Whether GSM's alphabet or the provider's lacks a character of it. ValueError when `text` has a lone surrogate."""
    encoding, _ = _encode(text, ucs2=False)
    if encoding is _Encoding.GSM and alphabet is not Alphabet.GSM:
        try:
            text.encode(alphabet)
        except UnicodeEncodeError:
            return True
    return encoding is _Encoding.UCS2


def count_segments(text: str, *, ucs2: bool = False) -> int:
    """The number of segments that `segments` makes: at least 1. ValueError when `text` has a lone surrogate or needs more
    than 255."""
    if len(text) <= SINGLE_UNITS and text.isascii():
        return 1  # in either alphabet: an ASCII character takes two septets at most, or one unit
    encoding, octets = _encode(text, ucs2)
    if len(octets) <= _single_octets(encoding):
        return 1
    return len(_cuts(encoding, octets))


def segments(text: str, reference: int, *, ucs2: bool = False, alphabet: Alphabet = Alphabet.GSM) -> list[Segment]:
    """The segments of `text`; several are joined by `reference` (0 to 65535), which a text of one segment doesn't need.

    `ucs2`: UCS-2 even where GSM would do. No escape and no surrogate pair is split. GSM text is unpacked, one septet per octet: the SMSC
    packs it. In another `alphabet` a character is one octet, and the text is cut where it would be cut as GSM.

    ValueError when `reference` is out of range, `alphabet` lacks a character, or `text` has a lone surrogate or needs more than 255
    segments.
    """
    if not 0 <= reference <= 0xFFFF:
        raise ValueError("reference: must be 0 to 65535")
    encoding, octets = _encode(text, ucs2)
    if len(octets) <= _single_octets(encoding):
        return [Segment(_written(octets, encoding, alphabet), 0, encoding.value)]
    cuts = _cuts(encoding, octets)
    header = b"\x06\x08\x04" + reference.to_bytes(2) + bytes([len(cuts)])
    return [
        Segment(
            header + bytes([number]) + _written(octets[start:end], encoding, alphabet), ESM_CLASS_UDHI, encoding.value
        )
        for number, (start, end) in enumerate(cuts, start=1)
    ]


def _written(octets: bytes, encoding: _Encoding, alphabet: Alphabet) -> bytes:
    if alphabet is Alphabet.GSM or encoding is _Encoding.UCS2:
        return octets
    try:
        return decode_gsm(octets).encode(alphabet)
    except UnicodeEncodeError:
        raise ValueError(f"text: has a character that {alphabet} lacks") from None


def _encode(text: str, ucs2: bool) -> tuple[_Encoding, bytes]:
    septets = None if ucs2 else encode_gsm(text)
    if septets is not None:
        return _Encoding.GSM, septets
    try:
        return _Encoding.UCS2, text.encode("utf-16-be")
    except UnicodeEncodeError as error:
        raise ValueError(f"text: a lone surrogate at character {error.start}") from None


def _single_octets(encoding: _Encoding) -> int:
    return SINGLE_SEPTETS if encoding is _Encoding.GSM else 2 * SINGLE_UNITS


def _cuts(encoding: _Encoding, octets: bytes) -> list[tuple[int, int]]:
    """Where each of several segments starts and ends."""
    gsm = encoding is _Encoding.GSM
    longest, length = PART_SEPTETS if gsm else 2 * PART_UNITS, len(octets)
    cuts: list[tuple[int, int]] = []
    start = 0
    while start < length:
        end = min(start + longest, length)
        # No text ends with an escape, or with the first half of a surrogate pair.
        if gsm and octets[end - 1] == ESCAPE:
            end -= 1
        elif not gsm and 0xD8 <= octets[end - 2] <= 0xDB:
            end -= 2
        cuts.append((start, end))
        start = end
    if len(cuts) > MAX_SEGMENTS:
        raise ValueError(f"text: needs {len(cuts)} segments, more than {MAX_SEGMENTS}")
    return cuts
