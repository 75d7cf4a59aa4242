"""What was submitted or in doubt and never reported ends as `unknown`, once the gateway's receipt window is over.

Time is cut into slots of five minutes. Final receipts are noted by the slot of their attempt, many to a row; when a slot's window is
over, its attempts less those noted are stored as ended, and the slot is passed for good, in one transaction. Then that is published, and
forgotten. A receipt that comes later all the same wins by its rank.

An attempt is noted by its provider id, and by how often the carrier has given that anew: `<id>`, `<id>U+001E1`, and so on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import structlog
from asyncpg import Record

from libs.bus.codec import encode, message_key
from libs.bus.errors import PublishFailed
from libs.bus.port import Publisher
from libs.bus.tracing import traceparent_in
from libs.contracts import topics
from libs.contracts.events import (
    Leg,
    MessageEvent,
    PersonKind,
    Reason,
    ReceiptState,
    Recipient,
    SmsStatus,
    event_id,
)
from libs.contracts.statuses import Status
from libs.service_kit.crash_points import crash_point
from libs.service_kit.faults import fault
from libs.service_kit.metrics import UNREPORTED
from libs.storage.command_tags import rows_of_tag
from libs.storage.database import Pool
from libs.storage.partitions import Connection
from services.receipts.matching import Match, Registration
from services.receipts.statuses import SOURCE

log = structlog.get_logger()

SLOT_SECONDS = 300
SWEEP_SECONDS = 60.0
DEFAULT_WINDOW = timedelta(hours=72)
"""Of a gateway that the configuration no longer names."""
PUBLISHED_AT_ONCE = 1_000
DECIDE_TIMEOUT_SECONDS = 300.0
"""A slot may hold two million attempts, of which each takes some 10 µs."""

NOT_FINAL = frozenset({ReceiptState.ENROUTE, ReceiptState.ACCEPTED})
REASON = Reason("receipt.none", "no final receipt came within the gateway's receipt window")

_NOTE = "INSERT INTO reported SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[])"
_BEGIN = "INSERT INTO sweeps SELECT unnest($1::text[]), $2 ON CONFLICT DO NOTHING"
_GATEWAYS = "SELECT gateway FROM sweeps ORDER BY gateway"
_NEXT = "SELECT next_slot FROM sweeps WHERE gateway = $1 FOR UPDATE SKIP LOCKED"
_ATTEMPT = "message_id, cycle, leg, leg_at, part, parts, try_number, tenant, kind, person, gateway, provider_id"
# Only the index of times is of use here, so the primary key, which begins with the gateway, is kept out of it. What is newer than the
# table's statistics is estimated to be one row, for which a nested loop would do; hence the settings.
_PLAN = "SET LOCAL enable_seqscan = off; SET LOCAL enable_nestloop = off"
_END_SUBMITTED = f"""
    WITH told AS MATERIALIZED (
        SELECT unnest(string_to_array(provider_ids, chr(31))) AS noted FROM reported WHERE gateway = $1 AND slot = $2)
    INSERT INTO unreported SELECT {_ATTEMPT}, registered_at + $5::interval, trace_id FROM provider_ids AS p
     WHERE registered_at >= $3 AND registered_at < $4 AND gateway || '' = $1
       AND NOT EXISTS (
           SELECT FROM told AS t WHERE t.noted = p.provider_id || CASE p.reuse WHEN 0 THEN '' ELSE chr(30) || p.reuse END)
    ON CONFLICT DO NOTHING"""  # noqa: S608 - constants
_END_DOUBTS = f"""
    INSERT INTO unreported SELECT {_ATTEMPT}, doubted_at + $4::interval, trace_id FROM doubts
     WHERE doubted_at >= $2 AND doubted_at < $3 AND gateway = $1 AND provider_id IS NULL
    ON CONFLICT DO NOTHING"""  # noqa: S608 - constants
_MOVE_ON = "UPDATE sweeps SET next_slot = $2 + 1 WHERE gateway = $1"
_FORGET = "DELETE FROM reported WHERE gateway = $1 AND slot <= $2"
_ENDED = (
    f"SELECT {_ATTEMPT}, ended_at, trace_id FROM unreported ORDER BY message_id, cycle, leg, part, try_number LIMIT $1"  # noqa: S608
)
_PUBLISHED = """
    DELETE FROM unreported WHERE ctid = ANY (ARRAY(
        SELECT u.ctid FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[], $5::int[]) AS k (m, c, l, p, t)
        CROSS JOIN LATERAL (
            SELECT ctid FROM unreported
             WHERE (message_id, cycle, leg, part, try_number) = (k.m, k.c, k.l, k.p, k.t) OFFSET 0) AS u))"""


def slot_of(at: datetime) -> int:
    """Its number among the spans of `SLOT_SECONDS` since 1970."""
    return int(at.timestamp()) // SLOT_SECONDS


def start_of(slot: int) -> datetime:
    """When the slot of this number began."""
    return datetime.fromtimestamp(slot * SLOT_SECONDS, UTC)


async def note(connection: Connection, matches: Iterable[Match]) -> None:
    """Remember that these attempts had their final receipt; a repeat changes nothing."""
    by_slot: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for match in matches:
        if match.receipt.state not in NOT_FINAL:
            registration = match.registration
            by_slot[registration.gateway, slot_of(registration.registered_at)].append(_noted(registration))
    if by_slot:
        gateways, slots = zip(*by_slot, strict=True)
        await connection.execute(_NOTE, gateways, slots, ["\x1f".join(ids) for ids in by_slot.values()])


def _noted(registration: Registration) -> str:
    return f"{registration.provider_id}\x1e{registration.reuse}" if registration.reuse else registration.provider_id


async def sweep(pool: Pool, publisher: Publisher, windows: Mapping[str, timedelta], now: datetime) -> None:
    """End what is overdue by now. Call it only when all that the group had to consume some time ago is consumed.

    A gateway's first sweep begins with what is registered from then on. What can't be decided for one gateway is logged and keeps no other
    waiting. Raises PublishFailed; what was decided is published next time.
    """
    await pool.execute(_BEGIN, list(windows), slot_of(now))
    for row in await pool.fetch(_GATEWAYS):
        gateway: str = row["gateway"]
        try:
            while await _pass_slot(pool, gateway, windows.get(gateway, DEFAULT_WINDOW), now):
                await publish(pool, publisher)
        except PublishFailed:
            raise
        except Exception as error:
            log.error("what was never reported could not be told", gateway=gateway, fault=fault(error))
    await publish(pool, publisher)


async def _pass_slot(pool: Pool, gateway: str, window: timedelta, now: datetime) -> bool:
    """Decide the gateway's next slot; False if its window is not over, or another replica is at it."""
    async with pool.acquire() as connection, connection.transaction():
        slot: int | None = await connection.fetchval(_NEXT, gateway)
        if slot is None or start_of(slot + 1) + window > now:
            return False
        first, end = start_of(slot), start_of(slot + 1)
        await connection.execute(_PLAN)
        done = await connection.execute(
            _END_SUBMITTED, gateway, slot, first, end, window, timeout=DECIDE_TIMEOUT_SECONDS
        )
        ended = rows_of_tag(done)
        ended += rows_of_tag(await connection.execute(_END_DOUBTS, gateway, first, end, window))
        await connection.execute(_MOVE_ON, gateway, slot)
        await connection.execute(_FORGET, gateway, slot)
    crash_point("receipts.decide-publish")
    if ended:
        UNREPORTED.labels(gateway).inc(ended)
    return True


async def publish(pool: Pool, publisher: Publisher) -> None:
    """Publish what was ended, and forget it."""
    while rows := await pool.fetch(_ENDED, PUBLISHED_AT_ONCE):
        await publisher.publish(
            topics.STATUS.name, [(message_key(row["message_id"]), encode(_event(row))) for row in rows]
        )
        crash_point("receipts.publish-forget")
        keys = [(row["message_id"], row["cycle"], row["leg"], row["part"], row["try_number"]) for row in rows]
        await pool.execute(_PUBLISHED, *zip(*keys, strict=True))


def _event(row: Record) -> MessageEvent[SmsStatus]:
    coordinates = (row["message_id"], row["cycle"], row["leg"], row["part"], row["try_number"])
    id_, trace_id = event_id(SmsStatus.TYPE, *coordinates, Status.UNKNOWN, REASON.code), row["trace_id"]
    return MessageEvent(
        id=id_,
        type=SmsStatus.TYPE,
        source=SOURCE,
        time=row["ended_at"],
        subject=row["message_id"],
        traceparent=None if trace_id is None else traceparent_in(trace_id, id_),
        data=SmsStatus(
            tenant=row["tenant"],
            recipient=Recipient(PersonKind(row["kind"]), row["person"]),
            leg=Leg(row["cycle"], row["leg"], row["leg_at"]),
            part=row["part"],
            parts=row["parts"],
            try_number=row["try_number"],
            status=Status.UNKNOWN,
            observed_at=row["ended_at"],
            gateway=row["gateway"],
            provider_id=row["provider_id"],
            reason=REASON,
        ),
    )
