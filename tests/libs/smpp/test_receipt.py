"""Receipts as SMSCs write them: told from messages, read whatever they hold."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.smpp import tlv
from libs.smpp.pdus import DataSm, DeliverSm
from libs.smpp.receipt import (
    ESM_CLASS_INTERMEDIATE,
    ESM_CLASS_RECEIPT,
    MessageState,
    Receipt,
    read_receipt,
)
from tests.libs.smpp.examples import receipt_tlvs

APPENDIX_B = (
    b"id:0123456789 sub:001 dlvrd:001 submit date:2611200101 done date:2611200102 stat:DELIVRD err:000 text:Dear client"
)


def _receipt(text: bytes, *, esm_class: int = ESM_CLASS_RECEIPT, tlvs: dict[int, bytes] | None = None) -> Receipt:
    receipt = read_receipt(DeliverSm("254711000001", "Postrider", text, esm_class, tlvs=tlvs or {}))
    assert receipt is not None
    return receipt


def test_the_text_of_appendix_b_is_read() -> None:
    receipt = _receipt(APPENDIX_B)
    assert receipt == Receipt(
        message_id="0123456789",
        state=MessageState.DELIVERED,
        stat="DELIVRD",
        error="000",
        done_date="2611200102",
    )


@pytest.mark.parametrize(
    ("text", "message_id", "state", "error"),
    [
        (b"stat:UNDELIV err:0A1 done date:261120010203 id:77 text:x", "77", MessageState.UNDELIVERABLE, "0A1"),
        (b"id:77 sub: dlvrd: submit date: done date: stat:EXPIRED err: text:", "77", MessageState.EXPIRED, ""),
        (b"id:77 stat:REJECTD", "77", MessageState.REJECTED, ""),
        (b"ID:77 Stat:delivrd ERR:001 Text:hi", "77", MessageState.DELIVERED, "001"),
        (b"id:77,stat:ACCEPTD,err:000", "77", MessageState.ACCEPTED, "000"),
        (b"id: 77 submit_date: 2611200101 stat: DELETED", "77", MessageState.DELETED, ""),
        (b"id:77 stat:MYSTERY err:5", "77", None, "5"),
        (b"id:77 stat:SENT err:000", "77", None, "000"),
        (b"id:77 stat:UNKNOWN err:000", "77", MessageState.UNKNOWN, "000"),
        (b"id:77 err:000", "77", None, "000"),
        (b"id:77 stat:ENROUTE text:id:99 stat:DELIVRD err:9", "77", MessageState.ENROUTE, "9"),
        (b"id:77 smsc:2 stat:DELIVRD mccmnc:63902 err:000", "77", MessageState.DELIVERED, "000"),
        (b"id:77;smsc:2;stat:DELIVRD;err:000", "77", MessageState.DELIVERED, "000"),
        (b"id:77 status:UNDELIV error:12", "77", MessageState.UNDELIVERABLE, "12"),
        (b"\xff\xfe nothing readable", "", None, ""),
        (b"", "", None, ""),
    ],
)
def test_a_receipts_text_may_vary(text: bytes, message_id: str, state: MessageState | None, error: str) -> None:
    receipt = _receipt(text)
    assert (receipt.message_id, receipt.state, receipt.error) == (message_id, state, error)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("DELIVERD", MessageState.DELIVERED),
        ("EXPIRD", MessageState.EXPIRED),
        ("DELETE", MessageState.DELETED),
        ("UNDELIVRD", MessageState.UNDELIVERABLE),
        ("UNDELIVERD", MessageState.UNDELIVERABLE),
        ("UNDELIVERED", MessageState.UNDELIVERABLE),
        ("UNDELIVERABLE", MessageState.UNDELIVERABLE),
        ("FAILED", MessageState.UNDELIVERABLE),
        ("REJECTED", MessageState.REJECTED),
        ("ACCEPTED", MessageState.ACCEPTED),
        ("BUFFERED", MessageState.ENROUTE),
    ],
)
def test_a_word_that_carriers_misspell_or_write_out_is_known(word: str, state: MessageState) -> None:
    assert _receipt(f"id:77 stat:{word} err:000".encode()).state is state


@pytest.mark.parametrize(
    "rest",
    [
        b" to:254711000001 text:Your PIN is 1234",
        b" msg:Your PIN is 1234 to 254711000001",
        b" Your PIN is 1234, 254711000001",
        b" Text Your PIN is 1234 to: 254711000001",
    ],
)
@pytest.mark.parametrize("field", [b"id:77", b"done date:2611200102", b"stat:DELIVRD", b"err:011"])
def test_a_number_or_a_text_that_stands_behind_a_field_is_not_kept(field: bytes, rest: bytes) -> None:
    fields = [other for other in (b"id:77", b"done date:2611200102", b"stat:DELIVRD", b"err:011") if other != field]
    receipt = _receipt(b" ".join((*fields, field)) + rest)
    assert (receipt.message_id, receipt.done_date, receipt.error) == ("77", "2611200102", "011")
    assert (receipt.state, receipt.stat) == (MessageState.DELIVERED, "DELIVRD")


@pytest.mark.parametrize(
    "date",
    [
        "2611200102",
        "20261120010203",
        "2026-11-20 01:02:03",
        "2026-11-20 01:02:03Z",
        "2026-11-20T01:02:03Z",
        "2026-11-20T01:02:03.000+03:00",
        "2026/11/20 01:02",
        "+3",
    ],
)
def test_a_date_is_kept_as_it_was_given(date: str) -> None:
    assert _receipt(f"id:77 done  date: {date} 254711000001 stat:DELIVRD".encode()).done_date == date


@pytest.mark.parametrize("separator", [b" ", b"\0", b"\0 "])
def test_no_field_holds_a_nul(separator: bytes) -> None:
    fields = [b"id:a\0b", b"done date:26112001\x0002", b"stat:DELI\0VRD\0\r\n", b"err:0\0A1"]
    receipt = _receipt(separator.join(fields))
    assert (receipt.message_id, receipt.state, receipt.error) == ("ab", MessageState.DELIVERED, "0A1")
    assert (receipt.done_date, receipt.stat) == ("2611200102", "DELIVRD")


def test_the_quoted_message_overwrites_nothing_that_the_smsc_says() -> None:
    receipt = _receipt(APPENDIX_B + b" id:666 stat:REJECTD err:666")
    assert (receipt.message_id, receipt.state, receipt.error) == ("0123456789", MessageState.DELIVERED, "000")


def test_the_usual_text_is_read_as_every_other_is() -> None:
    numbers = ("0123456789", "a-Z_9", "1:2", "err:5", " 5", "")
    dates = ("2611200101", "", "26-11")
    stats = ("DELIVRD", "X", "delivrd", "id:1", "")
    errors = ("000", "0A1", "", "1 2", "a:b")
    rests = ("", " text:hi", " Text:err:9", "text:", " err:7", " id:9 text:", "\n")
    for number, date, stat, error, rest in product(numbers, dates, stats, errors, rests):
        fields = f"submit date:{date} done date:{date} stat:{stat} err:{error}"
        text = f"id:{number} sub:001 dlvrd:001 {fields}{rest}".encode()
        assert _receipt(text) == _receipt(b" " + text), "a leading space keeps the quick reader from it"


def test_parameters_alone_make_a_receipt() -> None:
    tlvs = {**receipt_tlvs("ABC", MessageState.EXPIRED), tlv.NETWORK_ERROR_CODE: b"\x03\x00\xff", 0x1400: b"\xff"}
    receipt = _receipt(b"", esm_class=0, tlvs=tlvs)
    assert (receipt.message_id, receipt.state, receipt.error) == ("ABC", MessageState.EXPIRED, "3/255")
    for name, value in receipt_tlvs("ABC", MessageState.EXPIRED).items():
        assert _receipt(b"", esm_class=0, tlvs={name: value})


def test_parameters_come_before_the_text() -> None:
    receipt = _receipt(APPENDIX_B, esm_class=0, tlvs=receipt_tlvs("ABC", MessageState.EXPIRED))
    assert (receipt.message_id, receipt.state, receipt.error) == ("ABC", MessageState.EXPIRED, "000")


@pytest.mark.parametrize("state", [b"", b"\x00", b"\x09", b"\xff", b"\x02\x02"])
def test_an_unknown_message_state_leaves_the_word_of_the_text(state: bytes) -> None:
    assert _receipt(APPENDIX_B, tlvs={tlv.MESSAGE_STATE: state}).state is MessageState.DELIVERED
    assert _receipt(b"", tlvs={tlv.MESSAGE_STATE: state}).state is None


@pytest.mark.parametrize(
    ("code", "words"), [(b"\xff\x80\x01", "255/32769"), (b"\3\0\1\0", "03000100"), (b"\xff\xff", "ffff"), (b"", "")]
)
def test_a_network_error_code_may_be_any_bytes_and_stands_behind_the_texts_own(code: bytes, words: str) -> None:
    assert _receipt(b"id:1 stat:UNDELIV", tlvs={tlv.NETWORK_ERROR_CODE: code}).error == words
    assert _receipt(b"id:1 stat:UNDELIV err:0A1", tlvs={tlv.NETWORK_ERROR_CODE: code}).error == "0A1"


@pytest.mark.parametrize("esm_class", [ESM_CLASS_RECEIPT, ESM_CLASS_INTERMEDIATE, ESM_CLASS_RECEIPT | 0x03])
def test_esm_class_alone_makes_a_receipt(esm_class: int) -> None:
    assert _receipt(b"no fields", esm_class=esm_class).message_id == ""


@pytest.mark.parametrize(
    "text",
    [
        APPENDIX_B,
        APPENDIX_B.partition(b" text:")[0] + b" \0\0",
        APPENDIX_B.partition(b" text:")[0] + b"\r\n",
        APPENDIX_B.replace(b"DELIVRD", b"delivrd"),
        APPENDIX_B.replace(b"text:", b"TEXT:"),
        APPENDIX_B.upper(),
        APPENDIX_B.replace(b"0123456789", b"0123456789.0-1"),
        APPENDIX_B.replace(b"sub:001 dlvrd:001 ", b""),
        APPENDIX_B.replace(b"dlvrd:001 ", b""),
        APPENDIX_B.replace(b"sub:001 dlvrd:001 submit date:2611200101 ", b""),
        APPENDIX_B.replace(b"2611200101", b"").replace(b"2611200102", b""),
    ],
)
def test_the_text_of_appendix_b_alone_makes_a_receipt(text: bytes) -> None:
    receipt = read_receipt(DeliverSm("254711000001", "Postrider", text))
    assert receipt is not None
    assert (receipt.message_id[:10], receipt.state, receipt.error) == ("0123456789", MessageState.DELIVERED, "000")


@pytest.mark.parametrize("word", [b"SENT", b"SUBMITD", b"skipped"])
def test_so_does_one_with_a_word_that_is_no_state_of_smpp(word: bytes) -> None:
    receipt = read_receipt(DeliverSm("254711000001", "Postrider", APPENDIX_B.replace(b"DELIVRD", word)))
    assert receipt is not None
    assert (receipt.state, receipt.stat) == (None, word.decode())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"Hello",
        b"my id: 1234, regards",
        b"id:1 stat:fine thanks",
        b"stat:DELIVRD",
        b"id:a\0b stat:DELIVRD",
        b"Did you get my id: 44? stat:delivered",
        APPENDIX_B.replace(b"DELIVRD", b"MYSTERY"),
        APPENDIX_B.replace(b"stat:DELIVRD ", b""),
        APPENDIX_B.replace(b"sub:001 dlvrd:001 submit date:2611200101 done date:2611200102 ", b""),
        APPENDIX_B.replace(b"sub:001 dlvrd:001 submit date:2611200101 done date:2611200102", b"done date:today"),
        APPENDIX_B.replace(b"sub:001 dlvrd:001 submit date:2611200101 done date:2611200102", b"done date:"),
        APPENDIX_B.replace(b" err:000", b", thank you"),
        b"You said: " + APPENDIX_B,
        b" " + APPENDIX_B,
    ],
)
def test_an_inbound_message_is_no_receipt(text: bytes) -> None:
    assert read_receipt(DeliverSm("254711000001", "2020", text)) is None


def test_a_receipt_may_come_as_data_sm_as_ucs2_or_behind_a_header() -> None:
    in_payload = DataSm("254711000001", "Postrider", ESM_CLASS_RECEIPT, tlvs={tlv.MESSAGE_PAYLOAD: APPENDIX_B})
    as_ucs2 = DeliverSm("1", "2", "id:7 stat:DELIVRD".encode("utf-16-be"), ESM_CLASS_RECEIPT, data_coding=8)
    header = b"\x06\x08\x04\x00\x01\x02\x01"
    with_header = DeliverSm("1", "2", header + as_ucs2.short_message, ESM_CLASS_RECEIPT | 0x40, data_coding=8)
    header_alone_says_nothing = DeliverSm("1", "2", header + APPENDIX_B, 0x40)
    for pdu in (in_payload, as_ucs2, with_header, header_alone_says_nothing):
        receipt = read_receipt(pdu)
        assert receipt is not None
        assert receipt.state is MessageState.DELIVERED


@given(
    st.binary(max_size=200),
    st.integers(0, 255),
    st.integers(0, 255),
    st.dictionaries(st.sampled_from([0x1E, 0x423, 0x424, 0x427, 0x1400]), st.binary(max_size=20)),
)
def test_no_content_makes_reading_fail(text: bytes, esm_class: int, data_coding: int, tlvs: dict[int, bytes]) -> None:
    read_receipt(DeliverSm("1", "2", text, esm_class, data_coding, tlvs=tlvs))
