"""What a receipt says of its attempt, as `sms.status` events."""

from __future__ import annotations

from collections.abc import Iterator

from libs.bus.quick_events import quick
from libs.bus.tracing import traceparent_in
from libs.contracts.events import Leg, MessageEvent, Reason, ReceiptState, Recipient, SmsStatus, event_id
from libs.contracts.statuses import Status
from services.receipts.matching import Match, Receipt

SOURCE = "postrider/receipts"

_Event, _Status = quick(MessageEvent[SmsStatus]), quick(SmsStatus)
_Recipient, _Leg = quick(Recipient), quick(Leg)

STATUSES: dict[ReceiptState, Status] = {
    ReceiptState.ENROUTE: Status.BUFFERED,
    ReceiptState.ACCEPTED: Status.BUFFERED,
    ReceiptState.UNKNOWN: Status.UNKNOWN,
    ReceiptState.DELIVERED: Status.DELIVERED,
    ReceiptState.EXPIRED: Status.EXPIRED,
    ReceiptState.UNDELIVERABLE: Status.FAILED,
    ReceiptState.DELETED: Status.FAILED,
    ReceiptState.REJECTED: Status.REJECTED,
}


def statuses(match: Match) -> Iterator[MessageEvent[SmsStatus]]:
    """The status that the receipt brings; before it `submitted`, where the receipt is what named the attempt."""
    receipt = match.receipt
    if match.resolves_doubt:
        yield _event(match, Status.SUBMITTED, Reason("receipt.doubt-resolved", "a receipt named the attempt"))
    yield _event(match, STATUSES[receipt.state], _reason(receipt))


def _reason(receipt: Receipt) -> Reason | None:
    """The carrier's word, where it is none of ours, and its error. Delivery needs no reason."""
    if receipt.state is ReceiptState.DELIVERED:
        return None
    said = [f"the carrier says {receipt.word}"] if receipt.word else []
    if receipt.error:
        said.append(f"err {receipt.error}")
    return Reason(f"receipt.{receipt.state}", ", ".join(said) or f"the receipt reads as {receipt.state}")


def _event(match: Match, status: Status, reason: Reason | None) -> MessageEvent[SmsStatus]:
    receipt, attempt = match.receipt, match.registration.attempt
    id_, trace_id = event_id(SmsStatus.TYPE, *attempt.coordinates, status, receipt.id), attempt.trace_id
    return _Event(
        id=id_,
        type=SmsStatus.TYPE,
        source=SOURCE,
        time=receipt.observed_at,
        subject=attempt.message_id,
        traceparent=receipt.traceparent if trace_id is None else traceparent_in(trace_id, id_),
        data=_Status(
            tenant=attempt.tenant,
            recipient=_Recipient(attempt.kind, attempt.person),
            leg=_Leg(attempt.cycle, attempt.leg, attempt.leg_at),
            part=attempt.part,
            parts=attempt.parts,
            try_number=attempt.try_number,
            status=status,
            observed_at=receipt.observed_at,
            gateway=receipt.gateway,
            provider_id=receipt.provider_id,
            reason=reason,
            carrier_time=receipt.carrier_time,
        ),
    )
