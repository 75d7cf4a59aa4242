"""What upstream systems may write otherwise than we do: persons' ids as integers, and media types."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_Number = Annotated[int, Field(gt=-(10**63), lt=10**64, description="taken as its decimal text")]

JsonMediaType = Annotated[str, Field(pattern=r"^[^/;]+/([^/;]+\+)?[Jj][Ss][Oo][Nn][ \t]*(;.*)?$")]
"""One that CloudEvents' JSON format §3.1 takes for JSON, with or without parameters; of any other, `data` would be no object."""


def decimal_text(value: Any) -> Any:
    """A JSON integer is taken as its decimal text: upstream systems number their clients."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def or_number(text: Any) -> BeforeValidator:
    """For a person's id: besides this text it may be an integer of as many characters."""
    return BeforeValidator(decimal_text, json_schema_input_type=text | _Number)
