"""Optional parameters (SMPP 3.4 §3.2.4, §5.3): tag, length, value. Values stay bytes: their meaning is the reader's affair."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from libs.smpp.errors import PduError
from libs.smpp.status import CommandStatus

RECEIPTED_MESSAGE_ID: Final = 0x001E
USER_MESSAGE_REFERENCE: Final = 0x0204
SC_INTERFACE_VERSION: Final = 0x0210
SAR_MSG_REF_NUM: Final = 0x020C
SAR_TOTAL_SEGMENTS: Final = 0x020E
SAR_SEGMENT_SEQNUM: Final = 0x020F
NETWORK_ERROR_CODE: Final = 0x0423
MESSAGE_PAYLOAD: Final = 0x0424
MESSAGE_STATE: Final = 0x0427

_HEADER: Final = struct.Struct(">HH")


def encode_tlvs(tlvs: Mapping[int, bytes]) -> bytes:
    """The parameters in the mapping's order. ValueError when a tag or a length doesn't fit 16 bits."""
    try:
        return b"".join([_HEADER.pack(tag, len(value)) + value for tag, value in tlvs.items()])
    except struct.error:
        raise ValueError("tlvs: a tag or the length of a value exceeds 65535") from None


def decode_tlvs(data: bytes, position: int) -> dict[int, bytes]:
    """The parameters from `position` to the end; of a repeated tag the last one.

    Unknown tags pass, whatever their value (§5.3.1). One to three octets left over are padding that some SMSCs send, and
    ignored. A value that reaches past the end is a PduError with ESME_RINVPARLEN.
    """
    tlvs: dict[int, bytes] = {}
    end = len(data)
    while position + 4 <= end:
        tag, length = _HEADER.unpack_from(data, position)
        position += 4 + length
        if position > end:
            raise PduError(CommandStatus.ESME_RINVPARLEN, f"optional parameter 0x{tag:04X}: its value is cut off")
        tlvs[tag] = data[position - length : position]
    return tlvs
