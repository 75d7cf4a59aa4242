"""A batch of records in, the statuses they bring out: stored, then published, then (by the consumer) committed."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from libs.bus.batch import Batch
from libs.bus.codec import AnyEvent, encode, message_key
from libs.bus.errors import BadRecord
from libs.bus.port import KeyValue, Publisher
from libs.bus.record import Record
from libs.bus.tracing import trace_id_of
from libs.contracts import topics
from libs.contracts.events import LONGEST_PROVIDER_ID, GatewayReceipt, MessageEvent, Reason, SmsStatus
from libs.contracts.statuses import Status
from libs.contracts.without_receipt import is_without_receipt
from libs.phone_numbers.privacy import fingerprint
from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import RECEIPTS_MATCHED
from libs.storage.database import Pool
from libs.storage.uuids import quick_uuid
from services.receipts import correlation, store, unreported
from services.receipts.matching import Attempt, Doubt, Match, Receipt, Registration
from services.receipts.recent import RecentRegistrations
from services.receipts.statuses import SOURCE, statuses

HOLD_SECONDS = 0.5
"""How long a receipt waits here for an answer to the submit that it has overtaken: far longer than most need, and to park one and take
it out again costs more than all else about it. Until then its record is not finished, so nothing is lost with us."""

# Eight digits and more, however they are spaced out.
_NUMBER = re.compile(r"[(+]*0*+(?:[0-9][ ().-]*){8,}")

WITHOUT_ID = Reason("receipt.without-id", "provider_id: is empty")
UNUSABLE_ID = Reason("receipt.unusable-id", "provider_id: is too long, or holds a NUL")

MAYBE_TAKEN = frozenset({Status.IN_DOUBT, Status.SUBMITTED})
"""What is told with a reference: that the carrier may have taken the attempt, or took it without a word of its id. Else it is disproved."""


async def handle(
    batch: Batch, pool: Pool, publisher: Publisher, destination_key: bytes, recent: RecentRegistrations
) -> Sequence[Record]:
    """Register ids, note doubts, match receipts; publish what that brought to light. Answers the receipts that wait a little."""
    registrations, doubts, receipts, unasked = sort_out((r.event for r in batch.records), destination_key)
    if not (registrations or doubts or receipts or unasked):
        return ()
    crash_point("receipts.receive-store")
    matches: list[Match] = []
    held: list[Record] = []
    recent.renew(batch.stream)
    async with pool.acquire() as connection:
        if doubts:  # before the registrations, which may end them
            matches += await correlation.doubt(connection, doubts, recent)
        if unasked:
            await store.end_doubts(connection, unasked)
        if registrations:
            matches += await correlation.register(connection, registrations, recent)
        if receipts:
            found, unsettled = await correlation.match(connection, receipts, recent)
            matches += found
            held = _young(batch, unsettled) if unsettled else []
            waiting = {record.event.id for record in held}
            if due := [receipt for receipt in unsettled if receipt.id not in waiting]:
                matches += await correlation.settle(connection, due, recent)
        await unreported.note(connection, matches)
    crash_point("receipts.store-publish")
    await publisher.publish(topics.STATUS.name, outgoing(matches))
    crash_point("receipts.publish-commit")
    for (gateway, state), count in Counter((m.receipt.gateway, m.receipt.state) for m in matches).items():
        RECEIPTS_MATCHED.labels(gateway, state).inc(count)
    return held


def _young(batch: Batch, receipts: Sequence[Receipt]) -> list[Record]:
    """The records of those receipts that came a moment ago."""
    ids = {receipt.id for receipt in receipts}
    since = time.monotonic() - HOLD_SECONDS
    return [record for record in batch.records if record.delivered_at > since and record.event.id in ids]


def sort_out(
    events: Iterable[AnyEvent], destination_key: bytes
) -> tuple[list[Registration], list[Doubt], list[Receipt], list[Attempt]]:
    """What of a batch concerns us, and the attempts that the carrier took and was asked for no receipt of. Raises BadRecord for a
    receipt without a usable id, which nothing could ever match.

    What this service has said itself does not concern it: that was stored before it was said, and would be said again without end.
    """
    registrations: list[Registration] = []
    doubts: list[Doubt] = []
    receipts: list[Receipt] = []
    unasked: list[Attempt] = []

    def compared(number: str | None) -> bytes | None:
        """The number's fingerprint. None of what is no whole number and says nothing: a name, a masked number, one without its area."""
        return fingerprint(number, destination_key) if number is not None and _NUMBER.fullmatch(number) else None

    for event in events:
        data = event.data
        if event.source == SOURCE:
            continue
        if isinstance(data, SmsStatus):
            if data.gateway is None or not isinstance(event, MessageEvent):
                continue
            if is_without_receipt(data.reason):
                unasked.append(_attempt(event, None))
            elif data.status is Status.SUBMITTED and data.provider_id:
                destination = fingerprint(data.destination, destination_key) if data.destination else None
                attempt = _attempt(event, destination)
                registrations.append(Registration(data.gateway, data.provider_id, 0, attempt, data.observed_at))
            elif data.reference is not None and data.destination:
                attempt = _attempt(event, fingerprint(data.destination, destination_key))
                disproved = data.status not in MAYBE_TAKEN
                doubts.append(Doubt(data.gateway, data.reference, attempt, data.observed_at, disproved))
        elif isinstance(data, GatewayReceipt):
            if not data.provider_id:
                raise BadRecord(WITHOUT_ID)
            if len(data.provider_id) > LONGEST_PROVIDER_ID or "\0" in data.provider_id:
                raise BadRecord(UNUSABLE_ID)
            receipts.append(
                Receipt(
                    data.gateway,
                    data.provider_id,
                    event.id,
                    data.state,
                    data.error,
                    data.carrier_time,
                    data.observed_at,
                    data.reference,
                    compared(data.destination),
                    event.traceparent,
                    data.word,
                )
            )
    return registrations, doubts, receipts, unasked


def outgoing(matches: Sequence[Match]) -> list[KeyValue]:
    """The records that matches bring, keyed by message id."""
    return [(message_key(event.subject), encode(event)) for m in matches for event in statuses(m)]


def _attempt(event: MessageEvent[SmsStatus], destination: bytes | None) -> Attempt:
    data = event.data
    return Attempt(
        quick_uuid(event.subject.int),
        data.leg.cycle,
        data.leg.leg,
        data.leg.leg_at,
        data.part,
        data.parts,
        data.try_number,
        data.tenant,
        data.recipient.kind,
        data.recipient.id,
        destination,
        trace_id_of(event.traceparent),
    )
