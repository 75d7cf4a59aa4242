"""Parts of which the carrier was asked for no receipt, because their gateway is configured so (`receipts`)."""

from __future__ import annotations

from libs.contracts.events import Reason

NOT_ASKED = Reason("receipt.not-asked", "the carrier was asked for no receipt")
"""Why such a part is `submitted` and stays so: the parts that have receipts speak for it."""


def is_without_receipt(reason: Reason | None) -> bool:
    """Whether this is why a part is `submitted`."""
    return reason is not None and reason.code == NOT_ASKED.code
