"""The ids that the carrier gives to messages: one number per submit, written as a response or a receipt writes it."""

from __future__ import annotations

import uuid
from typing import Final

from services.simulated_carrier.behaviour import IdFormat

_FIRST_NUMBER: Final = 1_000_000_000  # so long that hex differs from decimal, and has letters soon
_NAMESPACE: Final = uuid.UUID("6f9d1c0e-5f0b-4d57-9c0a-3c2b8f0d7e11")


def provider_id(sequence: int, id_format: IdFormat) -> str:
    """The provider id of the submit with that sequence in the ledger; never the same for two of them."""
    number = _FIRST_NUMBER + sequence
    match id_format:
        case "decimal":
            return str(number)
        case "hex":
            return f"{number:x}"
        case "hex_padded_upper":
            return f"{number:012X}"
        case "uuid":
            return str(uuid.uuid5(_NAMESPACE, str(number)))
