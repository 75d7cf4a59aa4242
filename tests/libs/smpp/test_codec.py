"""PDUs there and back, against the specification's bytes and against a foreign codec; and bytes that are no PDU."""

import contextlib
import struct
from itertools import pairwise

import aiosmpplib
import pytest
from aiosmpplib.state import NPI, TON, PhoneNumber
from hypothesis import given
from hypothesis import strategies as st

from libs.smpp import pdus, tlv
from libs.smpp.codec import Framer, decode
from libs.smpp.errors import PduError
from libs.smpp.pdus import BindType
from libs.smpp.status import CommandStatus

SUBMIT = pdus.SubmitSm(
    source_addr="Postrider",
    destination_addr="254711000001",
    short_message=b"Hello \x00\x1b\xff",
    esm_class=0x40,
    data_coding=8,
    registered_delivery=1,
    tlvs={tlv.USER_MESSAGE_REFERENCE: b"\x12\x34"},
    source_addr_ton=5,
    dest_addr_ton=1,
    dest_addr_npi=1,
    service_type="CMT",
    protocol_id=2,
    priority_flag=1,
    schedule_delivery_time="000001000000000R",
    validity_period="000002000000000R",
    replace_if_present_flag=1,
    sm_default_msg_id=3,
)

EVERY_PDU = [
    *(pdus.Bind(kind, "client", "a-rather-long-password", "VMA", 0x34, 1, 1, "^2547") for kind in BindType),
    *(pdus.BindResp(kind, 0, "smsc", {tlv.SC_INTERFACE_VERSION: b"\x34"}) for kind in BindType),
    pdus.BindResp(BindType.TRANSCEIVER, CommandStatus.ESME_RINVPASWD),
    pdus.Outbind("smsc", "secret"),
    SUBMIT,
    pdus.SubmitSm("", "1"),
    pdus.DeliverSm("254711000001", "Postrider", b"x" * 255, tlvs={0x1400: bytes(range(256)), 0x130C: b""}),
    pdus.DataSm("254711000001", "Postrider", 4, 8, 1, {tlv.MESSAGE_PAYLOAD: b"x" * 1000}, 2, 1, 5, 0, "WAP"),
    pdus.SubmitSmResp(0, "0A1B2C"),
    pdus.SubmitSmResp(CommandStatus.ESME_RTHROTTLED),
    pdus.SubmitSmResp(0x0401, "x", {0x1401: b"why"}),
    pdus.DeliverSmResp(CommandStatus.ESME_RX_T_APPN),
    pdus.DataSmResp(0, "17"),
    pdus.GenericNack(CommandStatus.ESME_RINVCMDID),
    pdus.Unbind(),
    pdus.UnbindResp(),
    pdus.EnquireLink(),
    pdus.EnquireLinkResp(),
]


@pytest.mark.parametrize("pdu", EVERY_PDU, ids=lambda pdu: type(pdu).__name__)
def test_every_pdu_comes_back_as_it_was(pdu: pdus.Pdu) -> None:
    assert decode(pdu.encode(0x7FFFFFFF)) == (0x7FFFFFFF, pdu)


def test_a_submit_has_the_octets_of_the_specification() -> None:
    pdu = pdus.SubmitSm("1616", "447712345678", b"Hi", registered_delivery=1, source_addr_ton=3, dest_addr_npi=1)
    body = b"\0" + b"\x03\x00" + b"1616\0" + b"\x00\x01" + b"447712345678\0" + b"\0\0\0" + b"\0" + b"\0" + b"\1\0\0\0"
    body += b"\x02Hi"
    assert pdu.encode(5) == struct.pack(">IIII", 16 + len(body), 4, 0, 5) + body


def test_a_text_in_message_payload_is_found_as_content() -> None:
    assert pdus.DeliverSm("1", "2", tlvs={tlv.MESSAGE_PAYLOAD: b"long"}).content == b"long"
    assert pdus.DeliverSm("1", "2", b"short").content == b"short"


@pytest.mark.parametrize(
    ("pdu", "field"),
    [
        (pdus.SubmitSm("Postrider", "2547\0" + "1"), "destination_addr"),
        (pdus.SubmitSm("2547\0" + "1", "1"), "source_addr"),
        (pdus.SubmitSm("x" * 21, "1"), "source_addr"),
        (pdus.SubmitSm("1", "2" * 21), "destination_addr"),
        (pdus.SubmitSm("Pöstrider€", "1"), "source_addr"),
        (pdus.SubmitSm("a", "1", validity_period="x" * 17), "validity_period"),
        (pdus.SubmitSm("a", "1", b"x" * 256), "short_message"),
        (pdus.SubmitSm("a", "1", data_coding=256), "one-octet field"),
        (pdus.SubmitSm("a", "1", tlvs={0x10000: b""}), "tlvs"),
        (pdus.Bind(BindType.TRANSCEIVER, "a\0b"), "system_id"),
    ],
)
def test_what_fits_no_pdu_is_refused_with_the_field_but_not_its_value(pdu: pdus.Pdu, field: str) -> None:
    with pytest.raises(ValueError, match=field) as raised:
        pdu.encode(1)
    assert "2547" not in str(raised.value)


# Against aiosmpplib, a codec written by others.


def _their(pdu: bytes) -> aiosmpplib.SmppMessage:
    header = aiosmpplib.SmppMessage.parse_header(pdu)
    types = {
        0x00000004: aiosmpplib.SubmitSm,
        0x00000005: aiosmpplib.DeliverSm,
        0x00000009: aiosmpplib.BindTransceiver,
        0x80000009: aiosmpplib.BindTransceiverResp,
        0x80000004: aiosmpplib.SubmitSmResp,
        0x00000015: aiosmpplib.EnquireLink,
    }
    return types[int(header.smpp_command)].from_pdu(pdu, header, default_encoding="gsm0338")


def test_our_pdus_are_read_by_a_foreign_codec() -> None:
    submit = _their(pdus.SubmitSm("Postrider", "254711000001", b"Hello", 0, 0, 1, source_addr_ton=5).encode(7))
    assert isinstance(submit, aiosmpplib.SubmitSm)
    assert (submit.sequence_num, submit.source.number, submit.source.ton) == (7, "Postrider", TON.ALPHANUMERIC)
    assert (submit.destination.number, submit.short_message) == ("254711000001", "Hello")
    assert submit.registered_delivery == 1
    bind = _their(pdus.Bind(BindType.TRANSCEIVER, "client", "secret", "VMA", addr_ton=1, address_range="^1").encode(1))
    assert isinstance(bind, aiosmpplib.BindTransceiver)
    assert (bind.system_id, bind.password, bind.system_type, bind.address_range) == ("client", "secret", "VMA", "^1")
    answer = _their(pdus.SubmitSmResp(0, "abc").encode(9))
    assert isinstance(answer, aiosmpplib.SubmitSmResp)
    assert (answer.message_id, answer.sequence_num) == ("abc", 9)
    bind_answer = _their(pdus.BindResp(BindType.TRANSCEIVER, 0, "smsc", {tlv.SC_INTERFACE_VERSION: b"\x34"}).encode(1))
    assert isinstance(bind_answer, aiosmpplib.BindTransceiverResp)
    assert (bind_answer.system_id, bind_answer.sc_interface_version) == ("smsc", 0x34)
    assert isinstance(_their(pdus.EnquireLink().encode(3)), aiosmpplib.EnquireLink)


def test_a_foreign_codecs_pdus_are_read_by_ours() -> None:
    message = aiosmpplib.SubmitSm(
        short_message="Hello",
        source=PhoneNumber("Postrider", TON.ALPHANUMERIC, NPI.UNKNOWN),
        destination=PhoneNumber("254711000001", TON.INTERNATIONAL, NPI.ISDN),
        log_id="x",
        sequence_num=11,
    )
    message.encoding = "gsm0338"
    sequence, submit = decode(message.pdu())
    assert sequence == 11
    assert submit == pdus.SubmitSm(
        "Postrider",
        "254711000001",
        b"Hello",
        registered_delivery=1,
        source_addr_ton=5,
        dest_addr_ton=1,
        dest_addr_npi=1,
    )
    bind = aiosmpplib.BindTransceiver(sequence_num=1, system_id="client", password="secret", system_type="VMA")
    assert decode(bind.pdu()) == (1, pdus.Bind(BindType.TRANSCEIVER, "client", "secret", "VMA"))
    answer = aiosmpplib.SubmitSmResp(message_id="abc", sequence_num=4, log_id="")
    assert decode(answer.pdu()) == (4, pdus.SubmitSmResp(0, "abc"))
    assert decode(aiosmpplib.Unbind(sequence_num=5).pdu()) == (5, pdus.Unbind())


# Tolerance, and its limits.


def _pdu(command_id: int, body: bytes, status: int = 0) -> bytes:
    return struct.pack(">IIII", 16 + len(body), command_id, status, 3) + body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", pdus.SubmitSmResp(0)),
        (b"abc", pdus.SubmitSmResp(0, "abc")),
        (b"abc\0\x00\x1e\x00\x09x", pdus.SubmitSmResp(0, "abc")),
    ],
    ids=["no body", "no NUL", "a cut parameter"],
)
def test_a_sloppy_response_still_counts(body: bytes, expected: pdus.Pdu) -> None:
    assert decode(_pdu(0x80000004, body)) == (3, expected)


def test_padding_after_the_last_parameter_is_ignored() -> None:
    body = pdus.DeliverSm("1", "2", b"x").encode(1)[16:] + b"\0\0\0"
    assert decode(_pdu(5, body)) == (3, pdus.DeliverSm("1", "2", b"x"))


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (_pdu(0x00000077, b""), CommandStatus.ESME_RINVCMDID),
        (_pdu(5, b"\0\0\0no end"), CommandStatus.ESME_RINVCMDLEN),
        (_pdu(5, pdus.DeliverSm("1", "2", b"12345").encode(1)[16:-1]), CommandStatus.ESME_RINVMSGLEN),
        (_pdu(5, pdus.DeliverSm("1", "2", b"x").encode(1)[16:] + b"\x04\x24\xff\xffx"), CommandStatus.ESME_RINVPARLEN),
        (_pdu(5, pdus.DeliverSm("1", "2", b"x").encode(1)[16:] + b"\x04\x24\0\2x"), CommandStatus.ESME_RINVPARLEN),
        (_pdu(5, bytes(12)), CommandStatus.ESME_RINVCMDLEN),
        (_pdu(9, b"client\0secret\0"), CommandStatus.ESME_RINVCMDLEN),
    ],
    ids=[
        "unknown command",
        "no NUL",
        "sm_length too long",
        "parameter too long",
        "parameter too long by one",
        "no sm_length",
        "half a bind",
    ],
)
def test_a_bad_request_says_what_to_answer_and_to_whom(frame: bytes, status: CommandStatus) -> None:
    with pytest.raises(PduError) as raised:
        decode(frame)
    assert raised.value.command_status is status
    assert (raised.value.sequence, raised.value.command_id) == (3, struct.unpack(">I", frame[4:8])[0])


@given(st.integers(0, 0x1FF), st.booleans(), st.binary(max_size=120))
def test_whatever_the_bytes_only_a_pdu_error_comes(command: int, response: bool, body: bytes) -> None:
    try:
        decode(_pdu(command | (0x80000000 if response else 0), body))
    except PduError as error:
        assert error.sequence == 3


@given(st.sampled_from(EVERY_PDU), st.data())
def test_a_pdu_with_changed_bytes_is_read_or_refused(pdu: pdus.Pdu, data: st.DataObject) -> None:
    frame = bytearray(pdu.encode(1))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PduError):
        decode(bytes(frame))


# Framing.


@given(st.lists(st.sampled_from(EVERY_PDU), max_size=6), st.data())
def test_frames_are_cut_right_however_the_stream_is_split(sent: list[pdus.Pdu], data: st.DataObject) -> None:
    stream = b"".join(pdu.encode(number) for number, pdu in enumerate(sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    framer, received = Framer(), list[tuple[int, pdus.Pdu]]()
    for start, end in pairwise([0, *cuts, len(stream)]):
        received += [decode(frame) for frame in framer.feed(stream[start:end])]
    assert received == list(enumerate(sent))


@pytest.mark.parametrize("length", [0, 15, 65537, 0x48545450])
def test_an_impossible_length_is_refused_after_the_good_frames_before_it(length: int) -> None:
    good = pdus.EnquireLink().encode(1)
    frames = Framer().feed(good + struct.pack(">I", length))
    assert next(frames) == good
    with pytest.raises(PduError, match=f"command_length {length} ") as raised:
        next(frames)
    assert raised.value.command_status is CommandStatus.ESME_RINVCMDLEN


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_random_streams_make_frames_or_a_pdu_error(chunks: list[bytes]) -> None:
    framer = Framer()
    try:
        for chunk in chunks:
            for frame in framer.feed(chunk):
                assert len(frame) >= 16
    except PduError:
        pass
