"""A receipt ordered by hand, for a message of the ledger or for none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from libs.smpp import tlv
from libs.smpp.pdus import SubmitSm
from services.simulated_carrier.behaviour import Receipts, ReceiptState
from services.simulated_carrier.delivery import Delivery
from services.simulated_carrier.ledger import LedgerEntry, read_lines
from services.simulated_carrier.mobile_originated import Address
from services.simulated_carrier.provider_ids import provider_id
from services.simulated_carrier.receipts import Receipt, write_receipt

Id = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")]


class ReceiptOrder(BaseModel):
    """`system_id`, `source` and `destination` are those of the message; they are needed, all three, only when the ledger
    doesn't have it. The behaviour in force says how the receipt is written."""

    model_config = ConfigDict(extra="forbid", strict=True)

    provider_id: Id
    """as in the submit_sm_resp; one that the ledger lacks is written into the receipt as it is"""
    state: ReceiptState = "DELIVRD"
    system_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    source: Address | None = None
    destination: Address | None = None
    text: Annotated[str, Field(max_length=254, pattern=r"^[\x00-\xff]*$")] | None = None
    """the short message, instead of what a receipt says"""


class UnknownMessageError(LookupError):
    """The ledger has no message with that provider id, and the order doesn't say enough by itself."""


def find_message(ledger: Path, message_id: str) -> LedgerEntry | None:
    """The accepted submit with that provider id. Reads the whole ledger: 2 s for a million entries, so not on the loop."""
    wanted = b'"provider_id":' + msgspec.json.encode(message_id)
    for line in read_lines(ledger):
        if wanted in line:
            entry = msgspec.json.decode(line, type=LedgerEntry)
            if entry.provider_id == message_id:
                return entry
    return None


def write_ordered(
    order: ReceiptOrder, entry: LedgerEntry | None, now_us: int, behaviour: Receipts
) -> tuple[str, Delivery]:
    """To which system_id, and what. `entry` is the message, if the ledger has it; else UnknownMessageError when the order
    doesn't name both its ends and its system_id."""
    system_id = order.system_id or (entry and entry.system_id)
    source = order.source or (entry and entry.source)
    destination = order.destination or (entry and entry.destination)
    if not system_id or source is None or destination is None:
        raise UnknownMessageError(order.provider_id)
    tlvs: dict[int, bytes] = {}
    if entry is not None and entry.user_message_reference is not None:
        tlvs[tlv.USER_MESSAGE_REFERENCE] = entry.user_message_reference.to_bytes(2)
    receipt = Receipt(
        system_id,
        SubmitSm(source, destination, tlvs=tlvs),
        provider_id(entry.sequence, behaviour.id_format) if entry else order.provider_id,
        entry.received_at if entry else now_us,
        order.state,
    )
    text = None if order.text is None else order.text.encode("latin-1")
    return system_id, write_receipt(receipt, behaviour, text)
