"""Phone numbers as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.phone_numbers.parse import NumberError, NumberProblem, parse


@pytest.mark.parametrize(
    ("number", "region", "expected"),
    [
        ("+254711000001", None, "+254711000001"),
        ("00254711000001", None, "+254711000001"),
        ("  +254 711-000 001 ", "KE", "+254711000001"),
        ("0711000001", "KE", "+254711000001"),
        ("254711000001", "KE", "+254711000001"),
        ("+44 (0)20 7946 0958", "KE", "+442079460958"),
        ("00254711000017", "KE", "+254711000017"),  # abroad is 000 in Kenya
        ("000254711000017", "KE", "+254711000017"),
        ("00442079460958", "KE", "+442079460958"),
        ("00442079460958", "US", "+442079460958"),  # 011 in the United States
        ("011442079460958", "US", "+442079460958"),
        ("0012025550123", "US", "+12025550123"),
        ("00254711000017", "GB", "+254711000017"),
        ("00254711000017", "DE", "+254711000017"),
        ("0049 1512 3456789", "DE", "+4915123456789"),
        ("256772123456", "KE", "+256772123456"),
        ("256772123456", "US", "+256772123456"),
        ("２５６７７２１２３４５６", "KE", "+256772123456"),
        ("2209765575", "US", "+12209765575"),  # a number of both the United States and the Gambia
        ("2209765575", "KE", "+2209765575"),
        ("＋２５４７１１０００００１", None, "+254711000001"),
        ("+254" + "-" * 27 + "711000001", None, "+254711000001"),
    ],
)
def test_a_number_has_one_form(number: str, region: str | None, expected: str) -> None:
    assert parse(number, region) == expected
    assert parse(expected) == expected


@pytest.mark.parametrize(
    ("number", "region", "problem"),
    [
        ("", "KE", NumberProblem.EMPTY),
        ("   ", None, NumberProblem.EMPTY),
        ("nobody", "KE", NumberProblem.UNPARSABLE),
        ("0800FLOWERS", "KE", NumberProblem.UNPARSABLE),
        ("tel:+254711000001", None, NumberProblem.UNPARSABLE),
        ("+254711000001 x5", None, NumberProblem.UNPARSABLE),
        ("+254711000001#5", None, NumberProblem.UNPARSABLE),
        ("+", None, NumberProblem.UNPARSABLE),
        ("0711000001", None, NumberProblem.NO_COUNTRY),
        ("254711000001", None, NumberProblem.NO_COUNTRY),
        ("18", "KE", NumberProblem.INVALID_FOR_REGION),
        ("2567721234", "KE", NumberProblem.INVALID_FOR_REGION),
        ("256 772 123456", "KE", NumberProblem.TOO_LONG),  # digits alone may lack their "+"
        ("25677212345678", "KE", NumberProblem.TOO_LONG),
        ("0256772123456", "KE", NumberProblem.TOO_LONG),
        ("254011000001", "KE", NumberProblem.INVALID_FOR_REGION),
        ("+999711000001", None, NumberProblem.UNKNOWN_COUNTRY),
        ("0711000001", "XX", NumberProblem.UNKNOWN_COUNTRY),
        ("+254711000001", "XX", NumberProblem.UNKNOWN_COUNTRY),
        ("+25471", "KE", NumberProblem.INVALID_FOR_REGION),
        ("+254011000001", None, NumberProblem.INVALID_FOR_REGION),
        ("+2547110000019999", None, NumberProblem.TOO_LONG),
        ("+254711000001999999999", None, NumberProblem.TOO_LONG),
        ("+49301234563287406", None, NumberProblem.TOO_LONG),  # to libphonenumber a landline
        ("+23480017565341671", None, NumberProblem.TOO_LONG),
        ("1" * 41, "KE", NumberProblem.TOO_LONG),
        ("00254711000017999", "KE", NumberProblem.TOO_LONG),
        ("0025471", "KE", NumberProblem.INVALID_FOR_REGION),
        ("00711000001", "KE", NumberProblem.INVALID_FOR_REGION),
        ("00999711000001", "KE", NumberProblem.UNKNOWN_COUNTRY),
        ("00999711000001", None, NumberProblem.UNKNOWN_COUNTRY),
    ],
)
def test_what_is_wrong_is_named_but_the_number_is_not(number: str, region: str | None, problem: NumberProblem) -> None:
    with pytest.raises(NumberError) as raised:
        parse(number, region)
    assert raised.value.problem is problem
    assert str(raised.value) == problem.value
    assert not any(char.isdigit() for char in str(raised.value))


@given(st.text(max_size=50), st.sampled_from([None, "KE", "GB", "US", "RU"]))
def test_whatever_is_written_gives_e164_or_a_number_error(number: str, region: str | None) -> None:
    try:
        parsed = parse(number, region)
    except NumberError:
        return
    assert parsed[0] == "+"
    assert parsed[1:].isascii()
    assert parsed[1:].isdigit()
    assert len(parsed) <= 16
