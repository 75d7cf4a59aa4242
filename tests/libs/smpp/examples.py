"""PDUs' contents as tests need them."""

from libs.smpp import tlv
from libs.smpp.receipt import MessageState


def receipt_tlvs(message_id: str, state: MessageState) -> dict[int, bytes]:
    """The optional parameters of a receipt."""
    return {tlv.RECEIPTED_MESSAGE_ID: message_id.encode("latin-1") + b"\0", tlv.MESSAGE_STATE: bytes([state.value])}
