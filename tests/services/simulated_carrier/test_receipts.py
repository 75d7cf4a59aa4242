from __future__ import annotations

import re

import pytest

from libs.smpp import tlv
from libs.smpp.codec import decode
from libs.smpp.pdus import DeliverSm
from libs.smpp.receipt import MessageState, read_receipt
from services.simulated_carrier.behaviour import Receipts, ReceiptState
from services.simulated_carrier.delivery import Delivery, frame_of
from services.simulated_carrier.receipts import ERRORS, STATES, Receipt, write_receipt
from tests.services.simulated_carrier.raw_client import sms

SUBMITTED_AT = 1_700_000_000_000_000  # 2023-11-14 22:13:20 UTC


def written(state: ReceiptState = "DELIVRD", **behaviour: object) -> DeliverSm:
    receipt = Receipt("demo", sms(text=b"your code is 123456 bye"), "1000000001", SUBMITTED_AT, state)
    return read(write_receipt(receipt, Receipts.model_validate(behaviour)))


def read(delivery: Delivery) -> DeliverSm:
    _, pdu = decode(frame_of(delivery, 1))
    assert isinstance(pdu, DeliverSm)
    return pdu


def text_of(delivery: DeliverSm) -> str:
    return delivery.short_message.decode()


def test_the_text_is_that_of_the_appendix() -> None:
    pattern = (
        r"id:1000000001 sub:001 dlvrd:001 submit date:2311142213 done date:\d{10} stat:DELIVRD err:000"
        r" text:your code is 123456 "
    )
    assert re.fullmatch(pattern, text_of(written()))


@pytest.mark.parametrize("state", list(STATES))
@pytest.mark.parametrize("content", ["text", "tlv", "both"])
def test_each_state_is_told_by_text_by_parameters_or_by_both(state: ReceiptState, content: str) -> None:
    delivery = written(state, content=content)
    receipt = read_receipt(delivery)
    assert receipt is not None
    assert (receipt.message_id, receipt.state) == ("1000000001", STATES[state])
    assert bool(delivery.short_message) == (content != "tlv")
    assert (tlv.RECEIPTED_MESSAGE_ID in delivery.tlvs) == (content != "text")
    assert (tlv.NETWORK_ERROR_CODE in delivery.tlvs) == (content != "text" and state in ERRORS)


def test_variants_that_carriers_are_known_for() -> None:
    assert "err:0A1" in text_of(written("UNDELIV", hex_error=True))
    assert "err:161" in text_of(written("UNDELIV"))
    assert "submit date:231114221320 " in text_of(written(dates_with_seconds=True))
    assert written(mark_esm_class=False).esm_class == 0
    nameless = written(omit_id=True)
    assert text_of(nameless).startswith("sub:001")
    assert nameless.tlvs == {tlv.MESSAGE_STATE: bytes([MessageState.DELIVERED.value])}


def test_a_text_that_is_not_plain_is_not_quoted() -> None:
    for submit in (sms(text=b"\x05\x00\x03\x01\x02\x01hi", esm_class=0x40), sms(text=b"\x04\x11", data_coding=8)):
        receipt = Receipt("demo", submit, "1", SUBMITTED_AT, "DELIVRD")
        assert text_of(read(write_receipt(receipt, Receipts()))).endswith(" text:")
