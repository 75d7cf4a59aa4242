"""Messages from a handset, as the carrier delivers them (SMPP 3.4 §4.6)."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from libs.smpp import tlv
from libs.smpp.pdus import ESM_CLASS_UDHI, DeliverSm
from libs.sms_text.parts import read_part
from libs.sms_text.segments import segments
from services.simulated_carrier.delivery import Delivery, delivery_of

_PART_OCTETS: Final = 133  # 140 less a user data header of 7
_MAX_PARTS: Final = 255

Address = Annotated[str, Field(min_length=1, max_length=20, pattern=r"^[\x21-\x7e ]+$")]
Hex = Annotated[str, Field(pattern=r"^([0-9a-fA-F]{2})*$", max_length=2 * _PART_OCTETS * _MAX_PARTS)]


class MobileOriginated(BaseModel):
    """One message; exactly one of `text` and `hex` is its content."""

    model_config = ConfigDict(extra="forbid", strict=True)

    system_id: Annotated[str, Field(min_length=1, max_length=64)]
    """whom it is delivered to, at once or when a session that receives is bound"""
    source: Address
    destination: Address
    text: str | None = None
    """goes as GSM 03.38 or UCS-2, in as many parts as it takes"""
    hex: Hex | None = None
    """octets as they are, under `data_coding`; above 140 of them in parts of 133"""
    data_coding: Annotated[int, Field(ge=0, le=255)] = 0
    """of `hex`; `text` brings its own"""
    concatenation: Literal["udh", "sar", "payload"] = "udh"
    """how parts are joined: 16-bit user data header, SAR parameters, or not parted but whole in message_payload"""
    reference: Annotated[int, Field(ge=0, le=0xFFFF)] = 0
    """joins the parts"""

    @model_validator(mode="after")
    def _has_one_content(self) -> Self:
        if (self.text is None) == (self.hex is None):
            raise ValueError("give exactly one of text and hex")
        return self


def write_messages(message: MobileOriginated) -> list[Delivery]:
    """A deliver_sm for each part. ValueError when the text needs more than 255 parts or can't be encoded."""
    if message.text is not None:
        pieces = segments(message.text, message.reference)
        octets = [read_part(piece.short_message, piece.esm_class).octets for piece in pieces]
        whole = b"".join(octets)
        data_coding = pieces[0].data_coding
    else:
        whole = bytes.fromhex(message.hex or "")
        data_coding = message.data_coding
        octets = [whole]
        if len(whole) > 140:
            octets = [whole[start : start + _PART_OCTETS] for start in range(0, len(whole), _PART_OCTETS)]
    if message.concatenation == "payload":
        octets = [whole]
    return [_part(message, data_coding, part, number, len(octets)) for number, part in enumerate(octets, start=1)]


def _part(message: MobileOriginated, data_coding: int, octets: bytes, number: int, total: int) -> Delivery:
    esm_class = 0
    tlvs: dict[int, bytes] = {}
    if message.concatenation == "payload":
        octets, tlvs = b"", {tlv.MESSAGE_PAYLOAD: octets}
    reference = message.reference.to_bytes(2)
    if total > 1 and message.concatenation == "udh":
        octets = b"\x06\x08\x04" + reference + bytes([total, number]) + octets
        esm_class = ESM_CLASS_UDHI
    elif total > 1:
        tlvs = {
            tlv.SAR_MSG_REF_NUM: reference,
            tlv.SAR_TOTAL_SEGMENTS: bytes([total]),
            tlv.SAR_SEGMENT_SEQNUM: bytes([number]),
        }
    return delivery_of(
        DeliverSm(
            message.source,
            message.destination,
            octets,
            esm_class=esm_class,
            data_coding=data_coding,
            tlvs=tlvs,
            source_addr_ton=1,
            source_addr_npi=1,
        )
    )
