"""Ids as responses and receipts write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.smpp.message_id import IdFormat, normalise_id


@given(st.integers(0, 2**128), st.integers(0, 5))
def test_hex_and_decimal_of_one_number_agree(number: int, zeros: int) -> None:
    decimal = normalise_id("0" * zeros + str(number), IdFormat.DECIMAL)
    assert decimal == normalise_id("0" * zeros + f"{number:x}", IdFormat.HEX)
    assert decimal == normalise_id(f"{number:X}", IdFormat.HEX)
    assert decimal == str(number)


@pytest.mark.parametrize(
    ("raw", "id_format", "expected"),
    [
        ("0x1F", IdFormat.HEX, "31"),
        ("0X1F", IdFormat.HEX, "31"),
        ("000", IdFormat.DECIMAL, "0"),
        (" 12\0", IdFormat.DECIMAL, "12"),
        ("00aB-7", IdFormat.TEXT, "00aB-7"),
        ("0012", IdFormat.TEXT, "0012"),
        ("4bf-92f", IdFormat.HEX, "4bf-92f"),
        ("1F", IdFormat.DECIMAL, "1F"),
        ("1_0", IdFormat.DECIMAL, "1_0"),
        ("٣", IdFormat.DECIMAL, "٣"),
        ("", IdFormat.HEX, ""),
    ],
)
def test_an_id_has_one_canonical_form(raw: str, id_format: IdFormat, expected: str) -> None:
    assert normalise_id(raw, id_format) == expected


@given(st.text(max_size=80), st.sampled_from(IdFormat))
def test_no_id_makes_it_fail_and_doing_it_to_text_twice_changes_nothing(raw: str, id_format: IdFormat) -> None:
    once = normalise_id(raw, id_format)
    assert normalise_id(once, IdFormat.TEXT) == once
