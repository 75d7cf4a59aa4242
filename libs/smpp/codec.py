"""From bytes to PDUs (SMPP 3.4 §3.2): cut the stream into frames, read a frame. `Pdu.encode` is the way back.

Only what makes a PDU unreadable is an error. Responses are read more tolerantly than requests: one that is thrown away
leaves a message in doubt, whereas a request that is refused comes again or is reported.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

from libs.smpp import pdus
from libs.smpp.errors import PduError
from libs.smpp.pdus import BindType, Pdu
from libs.smpp.status import CommandStatus
from libs.smpp.tlv import decode_tlvs

MAX_PDU_BYTES: Final = 64 * 1024
"""The longest frame we take. The longest sensible PDU carries a message_payload of at most 64 KiB less its fields."""

_LENGTH: Final = struct.Struct(">I")


class Framer:
    """Cuts the stream of one connection into frames, however TCP has split it."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Each frame that `data` completes, header included; iterate to the end.

        After the good frames before it, a length below 16 or above the limit raises PduError: the stream can't be cut
        any further, so the connection must be closed.
        """
        data = self._rest + data
        position, end = 0, len(data)
        while position + 4 <= end:
            length: int = _LENGTH.unpack_from(data, position)[0]
            if not 16 <= length <= MAX_PDU_BYTES:
                reason = f"command_length {length} is outside 16 to {MAX_PDU_BYTES}"
                raise PduError(CommandStatus.ESME_RINVCMDLEN, reason)
            if position + length > end:
                break
            yield data[position : position + length]
            position += length
        self._rest = data[position:]


def decode(frame: bytes) -> tuple[int, Pdu]:
    """The sequence number and the PDU of one whole frame. PduError when it can't be read; it says what to answer."""
    if len(frame) < 16:
        raise PduError(CommandStatus.ESME_RINVCMDLEN, "shorter than a header")
    length, command_id, command_status, sequence = pdus.HEADER.unpack_from(frame)
    try:
        if length != len(frame):
            raise PduError(CommandStatus.ESME_RINVCMDLEN, f"command_length {length} of a frame of {len(frame)} octets")
        read = _READERS.get(command_id)
        if read is None:
            raise PduError(CommandStatus.ESME_RINVCMDID, f"command_id 0x{command_id:08X} is unknown")
        return sequence, read(frame, command_status)
    except PduError as error:
        error.command_id, error.sequence = command_id, sequence
        raise
    except (IndexError, ValueError, struct.error):
        raise PduError(CommandStatus.ESME_RINVCMDLEN, "a field is cut off", command_id, sequence) from None


def _string(frame: bytes, position: int) -> tuple[str, int]:
    """The C-octet string at `position`, and the position after its NUL. ValueError when it has none."""
    end = frame.index(0, position)
    return frame[position:end].decode("latin-1"), end + 1


def _message_reader(make: type[pdus.SubmitSm] | type[pdus.DeliverSm]) -> Callable[[bytes, int], Pdu]:
    def read(frame: bytes, _status: int) -> Pdu:
        # Written out, without _string: this is the hottest decoder.
        find = frame.index
        service_end = find(0, 16)
        source_end = find(0, service_end + 3)
        destination_end = find(0, source_end + 3)
        schedule_end = find(0, destination_end + 4)
        validity_end = find(0, schedule_end + 1)
        text_start = validity_end + 6
        text_end = text_start + frame[validity_end + 5]
        if text_end > len(frame):
            raise PduError(CommandStatus.ESME_RINVMSGLEN, "sm_length reaches past the end")
        return make(
            frame[service_end + 3 : source_end].decode("latin-1"),
            frame[source_end + 3 : destination_end].decode("latin-1"),
            frame[text_start:text_end],
            frame[destination_end + 1],  # esm_class
            frame[validity_end + 3],  # data_coding
            frame[validity_end + 1],  # registered_delivery
            decode_tlvs(frame, text_end) if text_end < len(frame) else {},
            frame[service_end + 1],
            frame[service_end + 2],
            frame[source_end + 1],
            frame[source_end + 2],
            frame[16:service_end].decode("latin-1") if service_end > 16 else "",
            frame[destination_end + 2],  # protocol_id
            frame[destination_end + 3],  # priority_flag
            frame[destination_end + 4 : schedule_end].decode("latin-1") if schedule_end > destination_end + 4 else "",
            frame[schedule_end + 1 : validity_end].decode("latin-1") if validity_end > schedule_end + 1 else "",
            frame[validity_end + 2],  # replace_if_present_flag
            frame[validity_end + 4],  # sm_default_msg_id
        )

    return read


def _read_data_sm(frame: bytes, _status: int) -> Pdu:
    service_type, source = _string(frame, 16)
    source_addr, destination = _string(frame, source + 2)
    destination_addr, flags = _string(frame, destination + 2)
    return pdus.DataSm(
        source_addr,
        destination_addr,
        esm_class=frame[flags],
        registered_delivery=frame[flags + 1],
        data_coding=frame[flags + 2],
        tlvs=decode_tlvs(frame, flags + 3),
        source_addr_ton=frame[source],
        source_addr_npi=frame[source + 1],
        dest_addr_ton=frame[destination],
        dest_addr_npi=frame[destination + 1],
        service_type=service_type,
    )


def _response_body(frame: bytes) -> tuple[str, dict[int, bytes]]:
    """The string and the optional parameters of a response. A missing body, a string without its NUL and unreadable
    parameters are taken for what they hold: the answer itself, in the header, is what matters."""
    end = frame.find(0, 16)
    if end < 0:
        return frame[16:].decode("latin-1"), {}
    text = frame[16:end].decode("latin-1")
    if end + 1 == len(frame):
        return text, {}
    try:
        return text, decode_tlvs(frame, end + 1)
    except PduError:
        return text, {}


def _response_reader(
    make: type[pdus.SubmitSmResp] | type[pdus.DeliverSmResp] | type[pdus.DataSmResp],
) -> Callable[[bytes, int], Pdu]:
    def read(frame: bytes, status: int) -> Pdu:
        message_id, tlvs = _response_body(frame)
        return make(status, message_id, tlvs)

    return read


def _bind_reader(bind_type: BindType) -> Callable[[bytes, int], Pdu]:
    def read(frame: bytes, _status: int) -> Pdu:
        system_id, position = _string(frame, 16)
        password, position = _string(frame, position)
        system_type, position = _string(frame, position)
        address_range, _ = _string(frame, position + 3)
        version, addr_ton, addr_npi = frame[position : position + 3]
        return pdus.Bind(bind_type, system_id, password, system_type, version, addr_ton, addr_npi, address_range)

    return read


def _bind_resp_reader(bind_type: BindType) -> Callable[[bytes, int], Pdu]:
    def read(frame: bytes, status: int) -> Pdu:
        system_id, tlvs = _response_body(frame)
        return pdus.BindResp(bind_type, status, system_id, tlvs)

    return read


def _read_outbind(frame: bytes, _status: int) -> Pdu:
    system_id, position = _string(frame, 16)
    password, _ = _string(frame, position)
    return pdus.Outbind(system_id, password)


def _bodiless_reader(make: Callable[[int], Pdu]) -> Callable[[bytes, int], Pdu]:
    def read(_frame: bytes, status: int) -> Pdu:
        return make(status)

    return read


_READERS: Final[dict[int, Callable[[bytes, int], Pdu]]] = {
    **{kind.value: _bind_reader(kind) for kind in BindType},
    **{kind.value | pdus.RESPONSE_BIT: _bind_resp_reader(kind) for kind in BindType},
    **{kind.command_id: _message_reader(kind) for kind in (pdus.SubmitSm, pdus.DeliverSm)},
    **{kind.command_id: _response_reader(kind) for kind in (pdus.SubmitSmResp, pdus.DeliverSmResp, pdus.DataSmResp)},
    **{
        kind.command_id: _bodiless_reader(kind)
        for kind in (pdus.GenericNack, pdus.Unbind, pdus.UnbindResp, pdus.EnquireLink, pdus.EnquireLinkResp)
    },
    pdus.DataSm.command_id: _read_data_sm,
    pdus.Outbind.command_id: _read_outbind,
}
