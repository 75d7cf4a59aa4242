"""From a phone number as people write it to E.164."""

from __future__ import annotations

import enum
from contextlib import suppress
from typing import Final

import phonenumbers
from phonenumbers import NumberParseException

_MAX_DIGITS: Final = 15
"""Libphonenumber knows longer ones in Germany and Nigeria, service numbers and landlines, which no SMS reaches."""
_MAX_CHARACTERS: Final = 40
"""Longer than any number however it is spaced out; what is longer isn't worth parsing."""


class NumberProblem(enum.Enum):
    """What is wrong with a number; the value is for people."""

    EMPTY = "the number is empty"
    UNPARSABLE = "this is not a phone number"
    NO_COUNTRY = "the number has no country code, and no default region is set"
    UNKNOWN_COUNTRY = "the country code or the default region doesn't exist"
    INVALID_FOR_REGION = "no such number exists in its country"
    TOO_LONG = "the number is too long"


class NumberError(ValueError):
    """A number that can't be used. It never says the number itself."""

    def __init__(self, problem: NumberProblem) -> None:
        super().__init__(problem.value)
        self.problem = problem


def is_region(code: str) -> bool:
    """Whether there are numbers of this region (ISO 3166, "KE")."""
    return code in phonenumbers.SUPPORTED_REGIONS


def parse(number: str, default_region: str | None = None) -> str:
    """The E.164 form of `number`: "+", country code, subscriber number; at most 15 digits.

    One without "+" is read as dialled in `default_region` (ISO 3166, "KE"). If no number is dialled so there, a leading "00" stands for
    "+", whatever the region dials abroad by, and digits alone are read as if "+" stood before them. Without a region digits alone are
    refused: they may be a national number of any country.

    NumberError when it is empty, unparsable (letters and extensions included: an SMS can't reach them), without a
    country, invalid or too long.
    """
    text = number.strip()
    if not text:
        raise NumberError(NumberProblem.EMPTY)
    if len(text) > _MAX_CHARACTERS:
        raise NumberError(NumberProblem.TOO_LONG)
    if any(char.isalpha() for char in text):
        raise NumberError(NumberProblem.UNPARSABLE)
    if default_region is not None and not is_region(default_region):
        raise NumberError(NumberProblem.UNKNOWN_COUNTRY)
    try:
        return _read(text, default_region)
    except NumberError:
        if text.startswith("00"):
            return _read("+" + text[2:], default_region)
        if default_region is not None and text.isdecimal():
            with suppress(NumberError):
                return _read("+" + text, default_region)
        raise


def _read(text: str, default_region: str | None) -> str:
    try:
        parsed = phonenumbers.parse(text, default_region)
    except NumberParseException as error:
        raise NumberError(_problem(error, text, default_region)) from None
    if parsed.extension:
        raise NumberError(NumberProblem.UNPARSABLE)
    if not phonenumbers.is_valid_number(parsed):
        reason = phonenumbers.is_possible_number_with_reason(parsed)
        too_long = reason == phonenumbers.ValidationResult.TOO_LONG
        raise NumberError(NumberProblem.TOO_LONG if too_long else NumberProblem.INVALID_FOR_REGION)
    number = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    if len(number) > 1 + _MAX_DIGITS:
        raise NumberError(NumberProblem.TOO_LONG)
    return number


def _problem(error: NumberParseException, text: str, default_region: str | None) -> NumberProblem:
    match error.error_type:
        case NumberParseException.INVALID_COUNTRY_CODE:
            missing = default_region is None and not text.startswith(("+", "＋"))
            return NumberProblem.NO_COUNTRY if missing else NumberProblem.UNKNOWN_COUNTRY
        case NumberParseException.TOO_LONG:
            return NumberProblem.TOO_LONG
        case _:
            return NumberProblem.UNPARSABLE
