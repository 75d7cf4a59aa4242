"""The decision about one leg of a message: through which gateway it goes out and to which number, or why it ends here."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, TypeAlias

from libs.contracts.events import Encoding, Message, PersonKind, Reason
from libs.contracts.http.requests import MAX_SEGMENTS
from libs.contracts.statuses import Status
from libs.service_kit.config_file import Gateway
from libs.sms_text import segments as sms_text
from services.resolver.contacts import Contact


class Dispatch(NamedTuple):
    """It goes out: the phone and name are the person's at `decided_at`, and stay so for this leg."""

    decided_at: datetime
    gateway: str
    phone: str
    person_name: str | None
    source_address: str | None
    encoding: Encoding
    segments: int


class Ended(NamedTuple):
    """It ends here, with a status and the reason."""

    decided_at: datetime
    status: Status
    reason: Reason


class Deferred(NamedTuple):
    """It waits, in the next leg, for the time that the message names."""

    decided_at: datetime


Decision: TypeAlias = Dispatch | Ended | Deferred

CANCELLED = Reason("cancelled", "its cancellation was asked for before it was sent")

VALIDITY_OVER = Reason("validity_over", "its validity was over before it could be sent")
UNKNOWN_PERSON = Reason("unknown_person", "no such client or staff member is known")
PERSON_DELETED = Reason("person_deleted", "the client or staff member was deleted")
NO_NUMBER = Reason("no_number", "no phone number is known for this person")
NUMBER_NOT_ALLOWED = Reason("number_not_allowed", "the sender may not send to a bare number")


def is_early(message: Message, leg: int, now: datetime) -> bool:
    """Whether it must wait. Only the first leg asks: that another begins says that it has waited."""
    return leg == 1 and message.scheduled_at is not None and message.scheduled_at > now


def decide(message: Message, contact: Contact | None, now: datetime, gateway: Gateway) -> Decision:
    """What becomes now of a message to a person of whom this is known (None: nothing), if it goes out through this gateway."""
    if message.valid_until <= now:
        return Ended(now, Status.EXPIRED, VALIDITY_OVER)
    if message.recipient.kind is PersonKind.NUMBER and not message.allow_unknown_number:
        return Ended(now, Status.REJECTED, NUMBER_NOT_ALLOWED)
    if contact is None:
        return Ended(now, Status.REJECTED, UNKNOWN_PERSON)
    if contact.deleted:
        return Ended(now, Status.REJECTED, PERSON_DELETED)
    if contact.phone is None:
        problem = contact.phone_problem
        return Ended(now, Status.REJECTED, NO_NUMBER if problem is None else Reason("invalid_number", problem))
    if not message.text:
        return Ended(now, Status.REJECTED, Reason("unsendable_text", "the text is empty"))
    try:
        ucs2 = sms_text.needs_ucs2(message.text, gateway.default_alphabet)
        segments = sms_text.count_segments(message.text, ucs2=ucs2)
    except ValueError as error:  # its words never quote the text
        return Ended(now, Status.REJECTED, Reason("unsendable_text", str(error)))
    if segments > MAX_SEGMENTS:
        words = f"needs {segments} segments in the gateway's alphabet; at most {MAX_SEGMENTS} are allowed"
        return Ended(now, Status.REJECTED, Reason("unsendable_text", words))
    encoding = Encoding.UCS2 if ucs2 else Encoding.GSM7
    source = message.sender_id or gateway.source_address
    return Dispatch(now, gateway.id, contact.phone, contact.name, source, encoding, segments)
