"""Delivery receipts (SMPP 3.4 §5.2.12, §5.3.2.12, §5.3.2.35, Appendix B): tell them from inbound messages, and read them.

Appendix B is an example, not a rule, and every SMSC varies it. So reading never fails: what is missing or unreadable is
empty or None. An exception here would make the SMSC deliver the same receipt for ever.

A field's value is one word, or a date. Whatever stands behind it belongs to a field that we don't know. It may be the number or the
message itself, and so is never kept.
"""

from __future__ import annotations

import enum
import re
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


_WORDS: Final[dict[MessageState | None, tuple[str, ...]]] = {
    MessageState.ENROUTE: ("ENROUTE", "BUFFERED", "BUFFRED"),
    MessageState.DELIVERED: ("DELIVRD", "DELIVERED", "DELIVERD"),
    MessageState.EXPIRED: ("EXPIRED", "EXPIRD"),
    MessageState.DELETED: ("DELETED", "DELETE"),
    MessageState.UNDELIVERABLE: ("UNDELIV", "UNDELIVERED", "UNDELIVERD", "UNDELIVRD", "UNDELIVERABLE", "FAILED"),
    MessageState.ACCEPTED: ("ACCEPTD", "ACCEPTED"),
    MessageState.UNKNOWN: ("UNKNOWN",),
    MessageState.REJECTED: ("REJECTD", "REJECTED"),
    None: ("SENT", "SUBMITD", "SUBMITTED", "SKIPPED"),  # often seen, and none of SMPP 3.4's states
}
_STATES: Final = {word: state for state, words in _WORDS.items() for word in words}
_CODES: Final = {state.value: state for state in MessageState}

_FIELD: Final = re.compile(
    r"\b(id|sub|dlvrd|submit[ _]*date|done[ _]*date|stat(?:us)?|err(?:or)?|text)\s*:", re.IGNORECASE
)
_VALUES: Final = {
    "id": re.compile(r"[^\s,;]*"),
    "stat": re.compile(r"\w{0,32}"),
    "err": re.compile(r"[\w./-]{0,32}"),
    "donedate": re.compile(r"(?:[0-9:./+-][0-9:./+TZ-]{0,31})?(?: [0-9]{1,2}:[0-9:.+Z-]{2,20})?"),
}
"""What is read of each field, from the first character of its value."""
# The text exactly as Appendix B shows it: most receipts are, and one match reads it many times faster than `_fields`.
_APPENDIX_B: Final = re.compile(
    r"id:([\w-]+) sub:[0-9]* dlvrd:[0-9]* submit date:[0-9]* done date:([0-9]{0,32}) stat:([A-Z]{0,32}) err:(\w{0,32})(?: [tT]ext:|$)"
)
# What nobody but an SMSC writes: all fields of Appendix B, dates that may be empty included; or one date at least, with or without counts.
_UNMARKED: Final = re.compile(
    r"id:[\w.-]+ (?:sub:[0-9]* dlvrd:[0-9]* submit date:[0-9]* done date:[0-9]* "
    r"|(?:(?:sub|dlvrd):[0-9]* )*(?:(?:submit|done) date:[0-9]{10,14} )+)stat:(\w+) err:\w{0,32}(?: text:|[\s\0]*$)",
    re.IGNORECASE,
)


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """One delivery receipt; a field that was not given is empty."""

    message_id: str  # the provider's, as written: normalise it before comparing
    state: MessageState | None  # None: it says none that we know
    stat: str  # the state's word as given
    error: str  # `err` as given, else the network_error_code parameter as "network type/code"
    done_date: str
    """As given: when the state was reached, by the provider's clock and in its zone, which it does not name."""


def read_receipt(pdu: DeliverSm | DataSm) -> Receipt | None:
    """The receipt that `pdu` is, or None when it is an inbound message.

    The signs, in order: a receipt's optional parameters; the bits of esm_class; a text in the form of Appendix B from its
    first character, with an id, counts or dates, and a known `stat:` (some SMSCs set nothing else). Nothing less: people write
    `id:` and `stat:` too.
    """
    marked = (
        tlv.RECEIPTED_MESSAGE_ID in pdu.tlvs
        or tlv.MESSAGE_STATE in pdu.tlvs
        or pdu.esm_class & (ESM_CLASS_RECEIPT | ESM_CLASS_INTERMEDIATE)
    )
    text = _text(pdu)
    if not marked and not ((form := _UNMARKED.match(text)) and form[1].upper() in _STATES):
        return None
    if usual := _APPENDIX_B.match(text):
        message_id, done_date, stat, error = usual.groups()
    else:
        fields = _fields(text).get
        message_id, done_date, stat, error = (fields(name, "") for name in ("id", "donedate", "stat", "err"))
    return Receipt(
        message_id=_octets_to_text(pdu.tlvs.get(tlv.RECEIPTED_MESSAGE_ID, b"")) or message_id,
        state=_state(pdu.tlvs.get(tlv.MESSAGE_STATE, b""), stat),
        stat=stat,
        error=error or _network_error(pdu.tlvs.get(tlv.NETWORK_ERROR_CODE, b"")),
        done_date=done_date,
    )


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
    for written, value in zip(pieces[1::2], pieces[2::2], strict=True):
        name = written.lower().replace(" ", "").replace("_", "")
        name = {"status": "stat", "error": "err"}.get(name, name)
        pattern = _VALUES.get(name)
        if pattern is not None and name not in fields and (found := pattern.match(value.replace("\0", "").lstrip())):
            fields[name] = found[0]
    return fields


def _state(parameter: bytes, stat: str) -> MessageState | None:
    """The state by its parameter when that is known, else by its word when that is."""
    state = _CODES.get(parameter[0]) if len(parameter) == 1 else None
    return state or _STATES.get(stat.upper())


def _network_error(parameter: bytes) -> str:
    """network_error_code (§5.3.2.31): one octet of network type, two of code; other lengths in hexadecimal."""
    if len(parameter) == 3:
        return f"{parameter[0]}/{int.from_bytes(parameter[1:])}"
    return parameter.hex()


def _octets_to_text(octets: bytes) -> str:
    return octets.split(b"\0", 1)[0].decode("latin-1").strip()
