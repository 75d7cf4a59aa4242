"""The GSM alphabet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.sms_text.gsm import decode_gsm, encode_gsm
from tests.libs.sms_text.test_segments import BASIC, EXTENSION


def test_the_alphabet_is_that_of_the_specification() -> None:
    codes = [code for code in range(128) if code != 0x1B]
    assert encode_gsm(BASIC) == bytes(codes)
    escaped = {"\f": 0x0A, "^": 0x14, "{": 0x28, "}": 0x29, "\\": 0x2F, "[": 0x3C, "~": 0x3D, "]": 0x3E, "|": 0x40}
    for char, code in {**escaped, "€": 0x65}.items():
        assert encode_gsm(char) == bytes([0x1B, code])


@given(st.text(alphabet=BASIC + EXTENSION))
def test_a_text_comes_back_as_it_was(text: str) -> None:
    septets = encode_gsm(text)
    assert septets is not None
    assert decode_gsm(septets) == text


@given(st.text() | st.text(alphabet="a@€[\0\x1b`я", max_size=8))
def test_what_the_alphabet_lacks_is_never_encoded_as_something_else(text: str) -> None:
    assert (encode_gsm(text) is None) == bool(set(text) - set(BASIC + EXTENSION))


@pytest.mark.parametrize(
    ("septets", "text"), [(b"a\x1b", "a "), (b"\x1bA", "A"), (b"\x1b\x1ba", " a"), (b"\x80\xff", "\ufffd\ufffd")]
)
def test_septets_that_say_nothing_still_make_a_text(septets: bytes, text: str) -> None:
    assert decode_gsm(septets) == text


@given(st.binary())
def test_no_septets_make_decoding_fail(septets: bytes) -> None:
    decode_gsm(septets)
