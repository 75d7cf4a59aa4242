"""The GSM 7-bit default alphabet and its extension table (3GPP TS 23.038 §6.2.1), one septet per octet as SMPP carries it."""

from __future__ import annotations

import codecs
from typing import Final

ESCAPE: Final = 0x1B

_BASIC: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION: Final = {
    "\f": 0x0A,
    "^": 0x14,
    "{": 0x28,
    "}": 0x29,
    "\\": 0x2F,
    "[": 0x3C,
    "~": 0x3D,
    "]": 0x3E,
    "|": 0x40,
    "€": 0x65,
}

# CPython encodes a whole string in C through a charmap, but only through one whose code 0 is NUL, and here that is "@".
# So the alphabet sits in the upper half of the map, and the octets are moved down afterwards.
_UPPER_HALF: Final = codecs.charmap_build("\0" + "\ufffe" * 127 + _BASIC)
_MOVE_DOWN: Final = bytes(octet & 0x7F for octet in range(256))
_ESCAPED: Final = {char: "\x1b" + _BASIC[code] for char, code in _EXTENSION.items()}

_SAME_IN_ASCII: Final = bytes(code for code in range(128) if _BASIC[code] == chr(code) and code != ESCAPE)

_PLAIN: Final = _BASIC.replace("\x1b", " ") + "\ufffd" * 128
_AFTER_ESCAPE: Final = {code: char for char, code in _EXTENSION.items()}


def encode_gsm(text: str) -> bytes | None:
    """The septets of `text`, an escape before each character of the extension table; None when the alphabet lacks one."""
    if text.isascii():
        octets = text.encode()
        if not octets.translate(None, _SAME_IN_ASCII):  # most texts: the two alphabets agree on every character
            return octets
    if "\x1b" in text or "\0" in text:  # the map knows both, but neither is a character of the alphabet
        return None
    try:
        return codecs.charmap_encode(text, "strict", _UPPER_HALF)[0].translate(_MOVE_DOWN)
    except UnicodeEncodeError as error:
        if text[error.start] not in _ESCAPED:
            return None
    for char, escaped in _ESCAPED.items():  # ten searches in C, many times faster than str.translate
        text = text.replace(char, escaped)
    try:
        return codecs.charmap_encode(text, "strict", _UPPER_HALF)[0].translate(_MOVE_DOWN)
    except UnicodeEncodeError:
        return None


def decode_gsm(septets: bytes) -> str:
    """The text of unpacked septets. It never fails: an escape before a code that the extension table lacks is passed over
    (§6.2.1.1: the basic table's character is shown), one that escapes nothing shows as a space, an octet above 127 as U+FFFD."""
    if ESCAPE not in septets:
        return septets.decode("latin-1").translate(_PLAIN)
    chars: list[str] = []
    escaped = False
    for septet in septets:
        if escaped:
            chars.append(_AFTER_ESCAPE.get(septet) or _PLAIN[septet])
            escaped = False
        elif septet == ESCAPE:
            escaped = True
        else:
            chars.append(_PLAIN[septet])
    if escaped:
        chars.append(" ")
    return "".join(chars)
