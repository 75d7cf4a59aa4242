"""A deliver_sm on its way: the octets behind its header. They are written once, however often it is sent; the header, with the sequence
number, is the session's."""

from __future__ import annotations

from libs.smpp.pdus import HEADER, DeliverSm

Delivery = bytes


def delivery_of(message: DeliverSm) -> Delivery:
    """ValueError when a field doesn't fit."""
    return message.encode(0)[HEADER.size :]


def frame_of(delivery: Delivery, sequence: int) -> bytes:
    """The whole PDU."""
    return HEADER.pack(HEADER.size + len(delivery), DeliverSm.command_id, 0, sequence) + delivery
