"""Delivery receipts (SMPP 3.4 §5.2.12, §5.3.2.12, §5.3.2.35, Appendix B): tell them from inbound messages, read, build.

Appendix B is an example, not a rule, and every SMSC varies it. So reading never fails: what is missing or unreadable is
empty or UNKNOWN, and what was given stays as it was given. An exception here would make the SMSC deliver the same receipt
for ever.
"""

from __future__ import annotations

import enum
import re
from datetime import UTC, datetime, tzinfo
from typing import Final

import msgspec

from libs.smpp import tlv
from libs.smpp.pdus import ESM_CLASS_UDHI, DataSm, DeliverSm

ESM_CLASS_RECEIPT: Final = 0x04
"""esm_class of a delivery receipt (§5.2.12)."""
ESM_CLASS_INTERMEDIATE: Final = 0x20
"""esm_class of an intermediate delivery notification."""


class MessageState(enum.IntEnum):
    """What has become of a message (§5.2.28); the values are the codes of the message_state parameter."""

    ENROUTE = 1
    DELIVERED = 2
    EXPIRED = 3
    DELETED = 4
    UNDELIVERABLE = 5
    ACCEPTED = 6
    UNKNOWN = 7
    REJECTED = 8


# The word of Appendix B comes first: it is the one that we write.
_WORDS: Final[dict[MessageState, tuple[str, ...]]] = {
    MessageState.ENROUTE: ("ENROUTE", "BUFFERED", "BUFFRED"),
    MessageState.DELIVERED: ("DELIVRD", "DELIVERED"),
    MessageState.EXPIRED: ("EXPIRED",),
    MessageState.DELETED: ("DELETED",),
    MessageState.UNDELIVERABLE: ("UNDELIV", "UNDELIVERED", "UNDELIVERABLE", "FAILED"),
    MessageState.ACCEPTED: ("ACCEPTD", "ACCEPTED"),
    MessageState.UNKNOWN: ("UNKNOWN",),
    MessageState.REJECTED: ("REJECTD", "REJECTED"),
}
_STATES: Final = {word: state for state, words in _WORDS.items() for word in words}
_CODES: Final = {state.value: state for state in MessageState}

_FIELD: Final = re.compile(r"\b(id|sub|dlvrd|submit[ _]?date|done[ _]?date|stat|err|text)\s*:", re.IGNORECASE)
# The text exactly as Appendix B shows it: most receipts are, and one match reads it many times faster than `_fields`.
_APPENDIX_B: Final = re.compile(
    r"id:([\w-]+) sub:[0-9]* dlvrd:[0-9]* submit date:([0-9]*) done date:([0-9]*) stat:([A-Z]*) err:(\w*)(?: [tT]ext:|$)"
)


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """One delivery receipt; a field that was not given is empty."""

    message_id: str  # the provider's, as written: normalise it before comparing
    state: MessageState
    stat: str  # the state's word as given
    error: str  # `err` as given, else the network_error_code parameter as "network type/code"
    submit_date: str  # as given
    done_date: str  # as given
    destination_addr: str  # the number that the message went to: the receipt comes *from* there
    source_addr: str  # the sender that the message bore

    def submitted_at(self, zone: tzinfo = UTC) -> datetime | None:
        """When the provider says it took the message, in UTC; None when unreadable. Receipts name no time zone: `zone` is
        the provider's."""
        return parse_date(self.submit_date, zone)

    def done_at(self, zone: tzinfo = UTC) -> datetime | None:
        """When the provider says the state was reached, in UTC; None when unreadable."""
        return parse_date(self.done_date, zone)


def read_receipt(pdu: DeliverSm | DataSm) -> Receipt | None:
    """The receipt that `pdu` is, or None when it is an inbound message.

    The signs, in order: a receipt's optional parameters; the bits of esm_class; a text in the whole form of Appendix B, with
    an id and a known `stat:` (some SMSCs set nothing else). Nothing less: people write `id:` and `stat:` too.
    """
    marked = (
        tlv.RECEIPTED_MESSAGE_ID in pdu.tlvs
        or tlv.MESSAGE_STATE in pdu.tlvs
        or pdu.esm_class & (ESM_CLASS_RECEIPT | ESM_CLASS_INTERMEDIATE)
    )
    text = _text(pdu)
    if usual := _APPENDIX_B.match(text):
        message_id, submit_date, done_date, stat, error = usual.groups()
        if not marked and stat not in _STATES:
            return None
    elif not marked:
        return None
    else:
        fields = _fields(text).get
        message_id, submit_date, done_date = fields("id", ""), fields("submitdate", ""), fields("donedate", "")
        stat, error = fields("stat", ""), fields("err", "")
    return Receipt(
        message_id=_octets_to_text(pdu.tlvs.get(tlv.RECEIPTED_MESSAGE_ID, b"")) or message_id,
        state=_state(pdu.tlvs.get(tlv.MESSAGE_STATE, b""), stat),
        stat=stat,
        error=error or _network_error(pdu.tlvs.get(tlv.NETWORK_ERROR_CODE, b"")),
        submit_date=submit_date,
        done_date=done_date,
        destination_addr=pdu.source_addr,
        source_addr=pdu.destination_addr,
    )


def build_receipt_text(
    message_id: str,
    state: MessageState,
    submitted_at: datetime,
    done_at: datetime,
    *,
    error: str = "000",
    text: str = "",
) -> bytes:
    """The text of a receipt as in Appendix B, its times to the minute as they stand in `submitted_at` and `done_at`."""
    delivered = "001" if state is MessageState.DELIVERED else "000"
    return (
        f"id:{message_id} sub:001 dlvrd:{delivered} submit date:{submitted_at:%y%m%d%H%M} done date:{done_at:%y%m%d%H%M}"
        f" stat:{_WORDS[state][0]} err:{error} text:{text[:20]}"
    ).encode("latin-1", "replace")


def build_receipt_tlvs(message_id: str, state: MessageState) -> dict[int, bytes]:
    """The optional parameters of a receipt."""
    return {tlv.RECEIPTED_MESSAGE_ID: message_id.encode("latin-1") + b"\0", tlv.MESSAGE_STATE: bytes([state.value])}


def parse_date(text: str, zone: tzinfo = UTC) -> datetime | None:
    """A receipt's date in UTC: YYMMDDhhmm, YYMMDDhhmmss, YYYYMMDDhhmmss, or YYYYMMDDhhmm where that alone is a date."""
    if not (text.isascii() and text.isdigit()):
        return None
    match len(text):
        case 10 | 12:
            return _date("20" + text, zone) or (_date(text, zone) if len(text) == 12 else None)
        case 14:
            return _date(text, zone)
        case _:
            return None


def _date(digits: str, zone: tzinfo) -> datetime | None:
    year, rest = int(digits[:4]), [int(digits[at : at + 2]) for at in range(4, len(digits), 2)]
    try:
        return datetime(year, *rest, tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _text(pdu: DeliverSm | DataSm) -> str:
    content = pdu.content
    if pdu.esm_class & ESM_CLASS_UDHI and content:
        content = content[1 + content[0] :]
    # Receipts are written in plain letters, which GSM 03.38, ASCII and latin-1 share; a few SMSCs send them as UCS-2.
    return content.decode("utf-16-be", "replace") if pdu.data_coding == 8 else content.decode("latin-1")


def _fields(text: str) -> dict[str, str]:
    """Name to value, in whatever order they stand. Of a repeated name the first, so that the quoted message (`text:`,
    which comes last) can't overwrite what the SMSC says. NULs, which GSM 03.38 has for `@`, are dropped: PostgreSQL stores none."""
    pieces = _FIELD.split(text)
    fields: dict[str, str] = {}
    for name, value in zip(pieces[1::2], pieces[2::2], strict=True):
        fields.setdefault(name.lower().replace(" ", "").replace("_", ""), value.replace("\0", "").strip(" \t\r\n;,"))
    return fields


def _state(parameter: bytes, stat: str) -> MessageState:
    """The state by its parameter when that is known, else by its word, else UNKNOWN."""
    state = _CODES.get(parameter[0]) if len(parameter) == 1 else None
    return state or _STATES.get(stat.upper(), MessageState.UNKNOWN)


def _network_error(parameter: bytes) -> str:
    """network_error_code (§5.3.2.31): one octet of network type, two of code; other lengths in hexadecimal."""
    if len(parameter) == 3:
        return f"{parameter[0]}/{int.from_bytes(parameter[1:])}"
    return parameter.hex()


def _octets_to_text(octets: bytes) -> str:
    return octets.split(b"\0", 1)[0].decode("latin-1").strip()
