"""What travelled, back to text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.sms_text.parts import Part, decode_text, is_text, read_part


@pytest.mark.parametrize(
    ("short_message", "part"),
    [
        (b"\x05\x00\x03\x07\x02\x01abc", Part(b"abc", 7, 2, 1)),
        (b"\x06\x08\x04\x01\x02\x0c\x0babc", Part(b"abc", 0x0102, 12, 11)),
        (b"\x09\x01\x01\xff\x08\x04\x01\x02\x03\x02abc", Part(b"abc", 0x0102, 3, 2)),
        (b"\x06\x05\x04\x0b\x84\x23\xf0abc", Part(b"abc")),
        (b"\x03\x00\x03\x07\x02\x01abc", Part(b"\x02\x01abc")),
        (b"\x00abc", Part(b"abc")),
        (b"\x03\x24\x01\x01abc", Part(b"abc", national=True)),
        (b"\x03\x25\x01\x06abc", Part(b"abc", national=True)),
        (b"\x03\x25\x01\x00abc", Part(b"abc")),
        (b"\x08\x00\x03\x07\x02\x01\x25\x01\x01abc", Part(b"abc", 7, 2, 1, national=True)),
    ],
    ids=[
        "8-bit reference",
        "16-bit reference",
        "behind another element",
        "no concatenation",
        "an element that is longer than the header",
        "empty header",
        "single shift",
        "locking shift",
        "the default table",
        "a national language before which it is joined",
    ],
)
def test_a_header_is_taken_off_and_understood(short_message: bytes, part: Part) -> None:
    assert read_part(short_message, 0x40) == part


def test_without_the_flag_there_is_no_header() -> None:
    assert read_part(b"\x05\x00\x03\x07\x02\x01abc", 0) == Part(b"\x05\x00\x03\x07\x02\x01abc")


@pytest.mark.parametrize(
    "short_message",
    [
        b"",
        b"\x05",
        b"\x05\x00\x03\x07\x02",
        b"\x05\x00\x03\x07\x02\x03",
        b"\x05\x00\x03\x07\x02\x00",
        b"\x05\x00\x03\x07\x00\x00",
        b"\xff",
    ],
)
def test_a_header_that_is_cut_off_or_absurd_is_refused(short_message: bytes) -> None:
    with pytest.raises(ValueError, match="short_message"):
        read_part(short_message, 0x40)


@given(st.binary(max_size=60))
def test_no_header_does_worse_than_a_value_error(short_message: bytes) -> None:
    try:
        part = read_part(short_message, 0x40)
    except ValueError:
        return
    assert short_message.endswith(part.octets)


@pytest.mark.parametrize(
    ("octets", "data_coding", "text"),
    [
        (b"\x00\x1be", 0, "@€"),
        (b"abc", 1, "abc"),
        (b"\xe9", 3, "é"),
        (b"\xef", 6, "я"),
        (b"\xe0", 7, "א"),
        (b"\x04\x4f\xd8\x3d\xde\x00", 8, "я😀"),
        (b"\x04", 8, "\ufffd"),
        (b"\x00", 0xF1, "@"),
        (b"\xe9", 0xF5, "é"),
        (b"\xe9", 0x77, "é"),
    ],
)
def test_a_data_coding_tells_the_alphabet(octets: bytes, data_coding: int, text: str) -> None:
    assert decode_text(octets, data_coding) == text


GSM = {0, *range(0x10, 0x14), *range(0x40, 0x44), *range(0x50, 0x54), *range(0xC0, 0xE0)}
GSM |= {*range(0xF0, 0xF4), *range(0xF8, 0xFC)}
UCS2 = {8, *range(0x18, 0x1C), *range(0x48, 0x4C), *range(0x58, 0x5C), *range(0xE0, 0xF0)}
OTHERS = {1: "ascii", 3: "latin-1", 6: "iso8859-5", 7: "iso8859-8"}


@pytest.mark.parametrize("data_coding", range(0x100), ids=hex)
def test_every_data_coding_is_of_its_group_and_what_is_compressed_binary_or_reserved_is_no_text(
    data_coding: int,
) -> None:
    octets = b"\x00A\x00e"
    codec = OTHERS.get(data_coding, "latin-1")
    expected = "@A@e" if data_coding in GSM else "Ae" if data_coding in UCS2 else octets.decode(codec)
    assert decode_text(octets, data_coding) == expected
    assert is_text(data_coding) == (data_coding in GSM | UCS2 | OTHERS.keys())
    assert is_text(data_coding, national=True) == (data_coding in UCS2 | OTHERS.keys())


@given(st.binary(), st.integers(0, 255))
def test_no_octets_make_decoding_fail(octets: bytes, data_coding: int) -> None:
    decode_text(octets, data_coding)
