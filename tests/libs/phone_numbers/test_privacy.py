"""Comparing numbers without the number."""

import pytest

from libs.phone_numbers.privacy import fingerprint

KEY = b"k" * 32


@pytest.mark.parametrize(
    "spelling", ["+254711000001", "254711000001", "00254711000001", "0711000001", "0711 000 001", "711-000-001\0"]
)
def test_all_spellings_of_a_number_have_one_fingerprint(spelling: str) -> None:
    assert fingerprint(spelling, KEY) == fingerprint("+254711000001", KEY)


def test_it_is_made_of_the_last_8_digits_and_is_the_same_for_ever() -> None:
    """Those that are stored are compared with those of later releases."""
    assert fingerprint("+254711000001", KEY).hex() == "a6cbe5c92bb25157"
    assert fingerprint("+12111000001", KEY) == fingerprint("+254711000001", KEY)
    assert fingerprint("+254721000001", KEY) != fingerprint("+254711000001", KEY)


@pytest.mark.parametrize("length", [16, 64])
def test_a_key_has_16_to_64_octets(length: int) -> None:
    assert len(fingerprint("+254711000001", b"k" * length)) == 8


def test_other_numbers_and_other_keys_have_others() -> None:
    ours = fingerprint("+254711000001", KEY)
    assert len(ours) == 8
    assert ours != fingerprint("+254711000002", KEY)
    assert ours != fingerprint("+254711000001", b"x" * 32)
    assert fingerprint("20201", KEY) != fingerprint("20202", KEY)


@pytest.mark.parametrize("key", [b"", b"k" * 15, b"k" * 65])
def test_a_key_that_protects_nothing_or_does_not_fit_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="key"):
        fingerprint("+254711000001", key)
