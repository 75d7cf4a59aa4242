"""Delivery receipts in the many ways in which carriers write them (SMPP 3.4 §5.2.12, §5.3, Appendix B).

`libs.smpp.receipt` reads what is written here. Nothing is shared with it but constants, so that the one can't hide a mistake of the other.
"""

from __future__ import annotations

import struct
import time
from functools import lru_cache
from typing import Final, NamedTuple

from libs.smpp import tlv
from libs.smpp.pdus import ESM_CLASS_UDHI, DeliverSm, SubmitSm
from libs.smpp.receipt import ESM_CLASS_INTERMEDIATE, ESM_CLASS_RECEIPT, MessageState
from services.simulated_carrier.behaviour import Receipts, ReceiptState
from services.simulated_carrier.delivery import Delivery, delivery_of

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
_TLV_HEADER: Final = struct.Struct(">HH")  # tag and length, §3.2.4


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


def write_receipt(receipt: Receipt, behaviour: Receipts, text: bytes | None = None) -> Delivery:
    """The deliver_sm of a receipt whose state is reached now; `text` goes instead of what a receipt says.

    Receipts are half of what a carrier writes, so all that they share with others is written once.
    """
    submit, state = receipt.submit, receipt.state
    if text is None:
        text = b"" if behaviour.content == "tlv" else _text(receipt, behaviour)
    start = _start(
        submit.destination_addr,
        submit.dest_addr_ton,
        submit.dest_addr_npi,
        submit.source_addr,
        submit.source_addr_ton,
        submit.source_addr_npi,
        _esm_class(state) if behaviour.mark_esm_class else 0,
    )
    parameters = b""
    if behaviour.content != "text":
        parameters = _state_parameters(state)
        if not behaviour.omit_id:
            given = receipt.message_id.encode("latin-1")
            parameters = b"%b%b\0%b" % (_TLV_HEADER.pack(tlv.RECEIPTED_MESSAGE_ID, len(given) + 1), given, parameters)
    if behaviour.echo_user_message_reference:
        reference = submit.tlvs.get(tlv.USER_MESSAGE_REFERENCE)
        if reference is not None:
            parameters += _TLV_HEADER.pack(tlv.USER_MESSAGE_REFERENCE, len(reference)) + reference
    return b"%b%c%b%b" % (start, len(text), text, parameters)


@lru_cache(maxsize=4096)
def _start(
    source: str, source_ton: int, source_npi: int, destination: str, ton: int, npi: int, esm_class: int
) -> Delivery:
    """Everything ahead of the text and its length."""
    empty = DeliverSm(
        source,
        destination,
        esm_class=esm_class,
        source_addr_ton=source_ton,
        source_addr_npi=source_npi,
        dest_addr_ton=ton,
        dest_addr_npi=npi,
    )
    return delivery_of(empty)[:-1]


@lru_cache
def _state_parameters(state: ReceiptState) -> bytes:
    tlvs = {tlv.MESSAGE_STATE: bytes([STATES[state].value])}
    if state in ERRORS:
        tlvs[tlv.NETWORK_ERROR_CODE] = _GSM_NETWORK + ERRORS[state].to_bytes(2)
    return tlv.encode_tlvs(tlvs)


def _esm_class(state: ReceiptState) -> int:
    return ESM_CLASS_INTERMEDIATE if state in _INTERMEDIATE else ESM_CLASS_RECEIPT


def _text(receipt: Receipt, behaviour: Receipts) -> bytes:
    submit = receipt.submit
    submitted, done = receipt.submitted_at // 1_000_000, int(time.time())
    words = _words(receipt.state, submitted, done, behaviour.dates_with_seconds, behaviour.hex_error)
    quoted = b"" if submit.esm_class & ESM_CLASS_UDHI or submit.data_coding else submit.short_message[:20]
    if behaviour.omit_id:
        return words + quoted
    return b"id:%b %b%b" % (receipt.message_id.encode("latin-1"), words, quoted)


@lru_cache(maxsize=4096)
def _words(state: ReceiptState, submitted: int, done: int, with_seconds: bool, hex_error: bool) -> bytes:
    """Everything between the id and the quoted text, of all messages of one second (since the epoch)."""
    error = ERRORS.get(state, 0)
    date_format = "%y%m%d%H%M%S" if with_seconds else "%y%m%d%H%M"
    return (
        f"sub:001 dlvrd:{'001' if state == 'DELIVRD' else '000'}"
        f" submit date:{time.strftime(date_format, time.gmtime(submitted))}"
        f" done date:{time.strftime(date_format, time.gmtime(done))}"
        f" stat:{state} err:{f'{error:03X}' if hex_error else f'{error:03d}'} text:"
    ).encode("latin-1")
