"""Delivery receipts in the many ways in which carriers write them (SMPP 3.4 §5.2.12, §5.3, Appendix B).

The text is written here, not by `libs.smpp.receipt`, which writes the one form of the appendix: to stray from it is
the purpose.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Final, NamedTuple

from libs.smpp import tlv
from libs.smpp.pdus import ESM_CLASS_UDHI, DeliverSm, SubmitSm
from libs.smpp.receipt import ESM_CLASS_INTERMEDIATE, ESM_CLASS_RECEIPT, MessageState, build_receipt_tlvs
from services.simulated_carrier.behaviour import Receipts, ReceiptState

STATES: Final[dict[ReceiptState, MessageState]] = {
    "ENROUTE": MessageState.ENROUTE,
    "DELIVRD": MessageState.DELIVERED,
    "EXPIRED": MessageState.EXPIRED,
    "DELETED": MessageState.DELETED,
    "UNDELIV": MessageState.UNDELIVERABLE,
    "ACCEPTD": MessageState.ACCEPTED,
    "UNKNOWN": MessageState.UNKNOWN,
    "REJECTD": MessageState.REJECTED,
}
ERRORS: Final[dict[ReceiptState, int]] = {"EXPIRED": 27, "DELETED": 172, "UNDELIV": 161, "UNKNOWN": 254, "REJECTD": 203}
"""The carrier's own error codes; no error: 0. Most have a letter in hexadecimal."""

_INTERMEDIATE: Final = ("ENROUTE", "ACCEPTD")
_GSM_NETWORK: Final = b"\x03"  # network_error_code, §5.3.2.31


class Receipt(NamedTuple):
    """A receipt that is yet to be written."""

    system_id: str
    submit: SubmitSm
    message_id: str
    """the provider id as the receipt will write it"""
    submitted_at: int
    """epoch µs"""
    state: ReceiptState


def wants_receipt(submit: SubmitSm, state: ReceiptState) -> bool:
    """Whether registered_delivery (§5.2.17) asks to be told of that state."""
    asked = submit.registered_delivery & 0x03
    if asked == 1:
        return True
    failed = state in ERRORS
    return (asked == 2 and failed) or (asked == 3 and state == "DELIVRD")  # 3: success only, as in SMPP 5.0


def write_receipt(receipt: Receipt, behaviour: Receipts) -> DeliverSm:
    """The deliver_sm of a receipt whose state is reached now."""
    submit, state = receipt.submit, receipt.state
    tlvs: dict[int, bytes] = {}
    if behaviour.content != "text":
        tlvs = build_receipt_tlvs(receipt.message_id, STATES[state])
        if behaviour.omit_id:
            del tlvs[tlv.RECEIPTED_MESSAGE_ID]
        if state in ERRORS:
            tlvs[tlv.NETWORK_ERROR_CODE] = _GSM_NETWORK + ERRORS[state].to_bytes(2)
    if behaviour.echo_user_message_reference:
        reference = submit.tlvs.get(tlv.USER_MESSAGE_REFERENCE)
        if reference is not None:
            tlvs[tlv.USER_MESSAGE_REFERENCE] = reference
    return DeliverSm(
        submit.destination_addr,
        submit.source_addr,
        b"" if behaviour.content == "tlv" else _text(receipt, behaviour),
        esm_class=_esm_class(state) if behaviour.mark_esm_class else 0,
        tlvs=tlvs,
        source_addr_ton=submit.dest_addr_ton,
        source_addr_npi=submit.dest_addr_npi,
        dest_addr_ton=submit.source_addr_ton,
        dest_addr_npi=submit.source_addr_npi,
    )


def _esm_class(state: ReceiptState) -> int:
    return ESM_CLASS_INTERMEDIATE if state in _INTERMEDIATE else ESM_CLASS_RECEIPT


def _text(receipt: Receipt, behaviour: Receipts) -> bytes:
    submit, state = receipt.submit, receipt.state
    error = ERRORS.get(state, 0)
    date_format = "%y%m%d%H%M%S" if behaviour.dates_with_seconds else "%y%m%d%H%M"
    quoted = b"" if submit.esm_class & ESM_CLASS_UDHI or submit.data_coding else submit.short_message[:20]
    return (
        f"{'' if behaviour.omit_id else f'id:{receipt.message_id} '}sub:001 dlvrd:{'001' if state == 'DELIVRD' else '000'}"
        f" submit date:{_date(receipt.submitted_at // 1_000_000, date_format)}"
        f" done date:{_date(int(time.time()), date_format)}"
        f" stat:{state} err:{f'{error:03X}' if behaviour.hex_error else f'{error:03d}'} text:"
    ).encode("latin-1") + quoted


@lru_cache(maxsize=4096)
def _date(epoch_second: int, date_format: str) -> str:
    return time.strftime(date_format, time.gmtime(epoch_second))
