"""The PDUs of SMPP 3.4 (§4) that Postrider speaks, on either side of a bind. Field names are the specification's.

A PDU is a value without its sequence number, which belongs to the session that sends it: `pdu.encode(sequence)`.
`codec.decode` is the way back. Strings are latin-1 (the specification says ASCII; some SMSCs send more); encoding
raises ValueError with the field's name, never with its value, when one is too long, holds a NUL or fits no octet.
"""

from __future__ import annotations

import enum
import struct
from abc import abstractmethod
from functools import lru_cache
from typing import ClassVar, Final

import msgspec

from libs.smpp import tlv
from libs.smpp.tlv import encode_tlvs

RESPONSE_BIT: Final = 0x8000_0000

HEADER: Final = struct.Struct(">IIII")  # command_length, command_id, command_status, sequence_number

ESM_CLASS_UDHI: Final = 0x40
"""The message begins with a user data header (§5.2.12)."""
LONGEST_PASSWORD = 64
"""In octets. The specification says 8 (§5.2.2); providers hand out longer ones."""


class BindType(enum.Enum):
    """What a session may do; the value is the command_id of its bind request."""

    RECEIVER = 0x0000_0001
    TRANSMITTER = 0x0000_0002
    TRANSCEIVER = 0x0000_0009


class Pdu(msgspec.Struct, frozen=True):
    """What all PDUs have in common."""

    @abstractmethod
    def encode(self, sequence: int) -> bytes:
        """The whole PDU, header included."""


def c_octets(value: str, limit: int) -> bytes:
    """`value` as a C-octet string of at most `limit` octets, without its NUL. ValueError, with the reason alone, where it is none."""
    if len(value) > limit:
        raise ValueError(f"longer than {limit} characters")
    try:
        octets = value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError("has a character that is not in latin-1") from None
    if b"\0" in octets:
        raise ValueError("has a NUL")
    return octets


def _field(name: str, value: str, limit: int) -> bytes:
    """The same for a field of a PDU, which the reason then names."""
    try:
        return c_octets(value, limit)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


_shared_field: Final = lru_cache(maxsize=1000)(_field)
"""The same, for fields that are alike in many messages."""


def _address_octets(source: str, destination: str) -> tuple[bytes, bytes]:
    """Both addresses of a message as C-octet strings; `_field` written out, since this is the hottest encoder."""
    if source.isascii() and destination.isascii():
        pair = source.encode(), destination.encode()
        if len(source) <= 20 and len(destination) <= 20 and 0 not in pair[0] and 0 not in pair[1]:
            return pair
    return _field("source_addr", source, 20), _field("destination_addr", destination, 20)


def _pdu(command_id: int, command_status: int, sequence: int, body: bytes) -> bytes:
    return HEADER.pack(16 + len(body), command_id, command_status, sequence) + body


class Bind(Pdu, frozen=True):
    """bind_receiver, bind_transmitter or bind_transceiver (§4.1)."""

    bind_type: BindType
    system_id: str
    password: str = ""
    system_type: str = ""
    interface_version: int = 0x34
    addr_ton: int = 0
    addr_npi: int = 0
    address_range: str = ""

    def encode(self, sequence: int) -> bytes:
        body = b"%b\0%b\0%b\0%c%c%c%b\0" % (
            _field("system_id", self.system_id, 64),
            _field("password", self.password, LONGEST_PASSWORD),
            _field("system_type", self.system_type, 12),
            self.interface_version,
            self.addr_ton,
            self.addr_npi,
            _field("address_range", self.address_range, 40),
        )
        return _pdu(self.bind_type.value, 0, sequence, body)


class BindResp(Pdu, frozen=True):
    """The answer to a bind (§4.1.2, §4.1.4, §4.1.6). A refusal carries no body."""

    bind_type: BindType
    command_status: int = 0
    system_id: str = ""
    tlvs: dict[int, bytes] = {}

    def encode(self, sequence: int) -> bytes:
        body = b""
        if not self.command_status:
            body = _field("system_id", self.system_id, 64) + b"\0" + encode_tlvs(self.tlvs)
        return _pdu(self.bind_type.value | RESPONSE_BIT, self.command_status, sequence, body)


class Outbind(Pdu, frozen=True):
    """An SMSC's wish that the ESME bind (§4.1.7); it has no response."""

    command_id: ClassVar[int] = 0x0000_000B
    system_id: str = ""
    password: str = ""

    def encode(self, sequence: int) -> bytes:
        system_id = _field("system_id", self.system_id, 64)
        password = _field("password", self.password, LONGEST_PASSWORD)
        return _pdu(self.command_id, 0, sequence, b"%b\0%b\0" % (system_id, password))


class _Message(Pdu, frozen=True, gc=False):
    """The common layout of submit_sm (§4.4.1) and deliver_sm (§4.6.1)."""

    command_id: ClassVar[int]

    source_addr: str
    destination_addr: str
    short_message: bytes = b""
    esm_class: int = 0
    data_coding: int = 0
    registered_delivery: int = 0
    tlvs: dict[int, bytes] = {}
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    dest_addr_ton: int = 0
    dest_addr_npi: int = 0
    service_type: str = ""
    protocol_id: int = 0
    priority_flag: int = 0
    schedule_delivery_time: str = ""
    validity_period: str = ""
    replace_if_present_flag: int = 0
    sm_default_msg_id: int = 0

    @property
    def content(self) -> bytes:
        """The message's octets, wherever they travel: short_message, else the message_payload parameter."""
        return self.short_message or self.tlvs.get(tlv.MESSAGE_PAYLOAD, b"")

    def encode(self, sequence: int) -> bytes:
        text = self.short_message
        source, destination = _address_octets(self.source_addr, self.destination_addr)
        try:
            body = b"%b\0%c%c%b\0%c%c%b\0%c%c%c%b\0%b\0%c%c%c%c%c%b" % (
                _shared_field("service_type", self.service_type, 5) if self.service_type else b"",
                self.source_addr_ton,
                self.source_addr_npi,
                source,
                self.dest_addr_ton,
                self.dest_addr_npi,
                destination,
                self.esm_class,
                self.protocol_id,
                self.priority_flag,
                _field("schedule_delivery_time", self.schedule_delivery_time, 16)
                if self.schedule_delivery_time
                else b"",
                _shared_field("validity_period", self.validity_period, 16) if self.validity_period else b"",
                self.registered_delivery,
                self.replace_if_present_flag,
                self.data_coding,
                self.sm_default_msg_id,
                len(text),
                text,
            )
        except OverflowError:
            raise ValueError("a one-octet field, or the length of short_message, exceeds 255") from None
        if self.tlvs:
            body += encode_tlvs(self.tlvs)
        return HEADER.pack(16 + len(body), self.command_id, 0, sequence) + body


class SubmitSm(_Message, frozen=True, gc=False):
    """A message from the ESME to the SMSC (§4.4.1)."""

    command_id: ClassVar[int] = 0x0000_0004


class DeliverSm(_Message, frozen=True, gc=False):
    """A message or a delivery receipt from the SMSC to the ESME (§4.6.1)."""

    command_id: ClassVar[int] = 0x0000_0005


class DataSm(Pdu, frozen=True):
    """The lean alternative to submit_sm and deliver_sm (§4.7.1); its text travels in message_payload."""

    command_id: ClassVar[int] = 0x0000_0103

    source_addr: str
    destination_addr: str
    esm_class: int = 0
    data_coding: int = 0
    registered_delivery: int = 0
    tlvs: dict[int, bytes] = {}
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    dest_addr_ton: int = 0
    dest_addr_npi: int = 0
    service_type: str = ""

    @property
    def content(self) -> bytes:
        """The message's octets."""
        return self.tlvs.get(tlv.MESSAGE_PAYLOAD, b"")

    def encode(self, sequence: int) -> bytes:
        body = b"%b\0%c%c%b\0%c%c%b\0%c%c%c%b" % (
            _field("service_type", self.service_type, 5),
            self.source_addr_ton,
            self.source_addr_npi,
            _field("source_addr", self.source_addr, 64),
            self.dest_addr_ton,
            self.dest_addr_npi,
            _field("destination_addr", self.destination_addr, 64),
            self.esm_class,
            self.registered_delivery,
            self.data_coding,
            encode_tlvs(self.tlvs),
        )
        return _pdu(self.command_id, 0, sequence, body)


class _MessageResp(Pdu, frozen=True, gc=False):
    """The common layout of the three message responses (§4.4.2, §4.6.2, §4.7.2)."""

    command_id: ClassVar[int]

    command_status: int = 0
    message_id: str = ""
    tlvs: dict[int, bytes] = {}

    def encode(self, sequence: int) -> bytes:
        message_id = _field("message_id", self.message_id, 64) if self.message_id else b""
        body = message_id + b"\0" + encode_tlvs(self.tlvs) if self.tlvs else message_id + b"\0"
        return HEADER.pack(16 + len(body), self.command_id, self.command_status, sequence) + body


class SubmitSmResp(_MessageResp, frozen=True, gc=False):
    """The answer to submit_sm; message_id is the SMSC's, in the SMSC's own format."""

    command_id: ClassVar[int] = 0x8000_0004


class DeliverSmResp(_MessageResp, frozen=True, gc=False):
    """The answer to deliver_sm; message_id is unused."""

    command_id: ClassVar[int] = 0x8000_0005


class DataSmResp(_MessageResp, frozen=True, gc=False):
    """The answer to data_sm."""

    command_id: ClassVar[int] = 0x8000_0103


class _Bodiless(Pdu, frozen=True):
    """A PDU that is only a header."""

    command_id: ClassVar[int]

    command_status: int = 0

    def encode(self, sequence: int) -> bytes:
        return HEADER.pack(16, self.command_id, self.command_status, sequence)


class GenericNack(_Bodiless, frozen=True):
    """The answer to what could not be understood (§4.3)."""

    command_id: ClassVar[int] = 0x8000_0000


class Unbind(_Bodiless, frozen=True):
    """The wish to end the session (§4.2)."""

    command_id: ClassVar[int] = 0x0000_0006


class UnbindResp(_Bodiless, frozen=True):
    """Its answer; the connection closes after it."""

    command_id: ClassVar[int] = 0x8000_0006


class EnquireLink(_Bodiless, frozen=True):
    """ "Are you there?" (§4.11), from either side."""

    command_id: ClassVar[int] = 0x0000_0015


class EnquireLinkResp(_Bodiless, frozen=True):
    """Its answer."""

    command_id: ClassVar[int] = 0x8000_0015
