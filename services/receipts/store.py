"""Provider ids, parked receipts and doubts in Postgres: one statement per batch, by sorted keys where rows are locked."""
# ruff: noqa: S608 - the statements are put together from the constants below alone

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from asyncpg import Record, UniqueViolationError
from msgspec.structs import astuple

from libs.contracts.events import PersonKind, ReceiptState
from libs.storage.array_literals import array_literal
from libs.storage.command_tags import rows_of_tag
from libs.storage.partitions import Connection
from services.receipts.matching import Attempt, Doubt, Key, Receipt, Registration

_ATTEMPT = "message_id, cycle, leg, leg_at, part, parts, try_number, tenant, kind, person, destination, trace_id"
_ATTEMPT_TYPES = "uuid, int, int, timestamptz, int, int, int, text, text, text, bytea, uuid"
_REGISTRATION = f"gateway, provider_id, reuse, {_ATTEMPT}, registered_at, resolved_by"
_DOUBT = f"gateway, reference, {_ATTEMPT}, doubted_at"
_DOUBT_TYPES = f"text, int, {_ATTEMPT_TYPES}, timestamptz"
_RECEIPT = "gateway, provider_id, receipt_id, state, error, carrier_time, observed_at, reference, destination, traceparent, word"
_RECEIPT_TYPES = "text, text, text, text, text, text, timestamptz, int, bytea, text, text"


def _unnest(types: str) -> str:
    """`unnest($1::a[], $2::b[], …)`: one array per column."""
    return "unnest(" + ", ".join(f"${n}::{t}[]" for n, t in enumerate(types.split(", "), 1)) + ")"


# An array of rows costs half of what an array per column does, and no more than a copy to a temporary table up to some hundred rows.
# Whatever registers an attempt also ends the doubt about it.
_INSERT = f"""
    WITH offered AS MATERIALIZED (SELECT * FROM unnest($1::traced_registration[])), settled AS (
        UPDATE doubts AS d SET provider_id = o.provider_id FROM offered AS o
        WHERE (d.message_id, d.cycle, d.leg, d.part, d.try_number)
            = (o.message_id, o.cycle, o.leg, o.part, o.try_number) AND d.provider_id IS NULL)
    INSERT INTO provider_ids ({_REGISTRATION}) SELECT {_REGISTRATION} FROM offered"""
# LATERAL with OFFSET 0, here and below: one index probe per key, whatever the planner believes of a table it never analysed. `= ANY` of a
# cast array would be parsed anew for each row of a scan: 2,000 ids beside 30,000 doubts took 20 s.
_DOUBTED = """
    SELECT EXISTS (
        SELECT FROM unnest($1::text::uuid[]) AS k (id)
        CROSS JOIN LATERAL (SELECT provider_id FROM doubts WHERE message_id = k.id OFFSET 0) AS d
        WHERE d.provider_id IS NULL)"""
_INSERT_NEW = f"{_INSERT} ON CONFLICT DO NOTHING"
_WRITE = f"""{_INSERT} ON CONFLICT (gateway, provider_id, reuse)
    DO UPDATE SET ({_ATTEMPT}, registered_at, resolved_by) =
    ROW ({", ".join("excluded." + c for c in f"{_ATTEMPT}, registered_at, resolved_by".split(", "))})"""

# A conflicting row is locked also where the condition leaves it as it is.
_LOCK = """
    INSERT INTO provider_ids (gateway, provider_id, reuse, parked)
    SELECT gateway, provider_id, 0, $3 FROM unnest($1::text[], $2::text[]) AS k (gateway, provider_id)
    ON CONFLICT (gateway, provider_id, reuse) DO UPDATE SET parked = true WHERE $3 AND NOT provider_ids.parked"""

_READ = f"""
    SELECT p.parked, {_REGISTRATION} FROM unnest($1::text::text[], $2::text::text[]) AS k (g, i)
    CROSS JOIN LATERAL (SELECT * FROM provider_ids WHERE gateway = k.g AND provider_id = k.i OFFSET 0) AS p"""

_PARK = f"""
    INSERT INTO parked ({_RECEIPT}) SELECT * FROM {_unnest(_RECEIPT_TYPES)} ON CONFLICT DO NOTHING RETURNING gateway"""
_PARKED = f"""
    SELECT {_RECEIPT} FROM unnest($1::text[], $2::text[]) AS k (g, i)
    CROSS JOIN LATERAL (SELECT * FROM parked WHERE gateway = k.g AND provider_id = k.i OFFSET 0) AS p
    ORDER BY observed_at, receipt_id"""
_PARKED_WITH_REFERENCE = f"""
    SELECT DISTINCT {_RECEIPT} FROM unnest($1::text[], $2::int[], $3::bytea[]) AS k (g, r, d)
    CROSS JOIN LATERAL (
        SELECT * FROM parked WHERE gateway = k.g AND reference = k.r AND destination = k.d OFFSET 0) AS p"""
_MATCHED = """
    UPDATE parked SET matched = true
    WHERE ctid = ANY (ARRAY(
        SELECT p.ctid FROM unnest($1::text[], $2::text[], $3::text[]) AS k (g, i, r)
        CROSS JOIN LATERAL (
            SELECT ctid, matched FROM parked WHERE (gateway, provider_id, receipt_id) = (k.g, k.i, k.r) OFFSET 0) AS p
        WHERE NOT p.matched)) AND NOT matched"""
_UNMATCHED = f"""
    SELECT {_RECEIPT} FROM parked WHERE NOT matched AND ($1::text IS NULL OR gateway = $1)
    ORDER BY observed_at DESC LIMIT $2"""

_DOUBT_INSERT = f"INSERT INTO doubts ({_DOUBT}) SELECT * FROM {_unnest(_DOUBT_TYPES)} ON CONFLICT DO NOTHING"
# No id: the carrier did not take it, or no receipt would name it.
_DOUBT_END = """
    UPDATE doubts SET provider_id = ''
    WHERE ctid = ANY (ARRAY(
        SELECT d.ctid FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[], $5::int[]) AS k (m, c, l, p, t)
        CROSS JOIN LATERAL (
            SELECT ctid, provider_id FROM doubts
            WHERE (message_id, cycle, leg, part, try_number) = (k.m, k.c, k.l, k.p, k.t) OFFSET 0) AS d
        WHERE d.provider_id IS NULL)) AND provider_id IS NULL"""
_DOUBTS = f"""
    SELECT DISTINCT {_DOUBT} FROM unnest($1::text[], $2::int[], $3::bytea[]) AS k (g, r, d)
    CROSS JOIN LATERAL (
        SELECT * FROM doubts
        WHERE gateway = k.g AND reference = k.r AND destination = k.d AND provider_id IS NULL OFFSET 0) AS p"""


async def insert_new(connection: Connection, registrations: Sequence[Registration]) -> int:
    """Register ids, sorted by key, that nobody has named yet: how many they were. Complete in itself: it leaves no lock.

    Nearly always nobody has, and their messages are not in doubt: then a copy does it, for half the price.
    """
    rows = [_flat(r) for r in registrations]
    if not await connection.fetchval(_DOUBTED, array_literal([r.attempt.message_id for r in registrations])):
        try:
            await connection.copy_records_to_table("provider_ids", records=rows, columns=_REGISTRATION.split(", "))
        except UniqueViolationError:
            pass
        else:
            return len(rows)
    tag = await connection.execute(_INSERT_NEW, rows)
    return rows_of_tag(tag)


async def write(connection: Connection, registrations: Sequence[Registration]) -> None:
    """Store registrations under locked keys."""
    if registrations:
        await connection.execute(_WRITE, [_flat(r) for r in registrations])


async def lock(connection: Connection, keys: Sequence[Key], *, parked: bool) -> None:
    """Lock these ids until the transaction ends; one that is not known is made known, without an attempt. `keys` are sorted."""
    await connection.execute(_LOCK, *_columns(keys), parked)


async def read(connection: Connection, keys: Sequence[Key]) -> tuple[dict[Key, list[Registration]], set[Key]]:
    """What is registered for these ids, and those for which there may be parked receipts."""
    known: dict[Key, list[Registration]] = {key: [] for key in keys}
    parked: set[Key] = set()
    for row in await connection.fetch(_READ, *map(array_literal, zip(*keys, strict=True))):
        key = (row[1], row[2])
        if row[0]:
            parked.add(key)
        if row[4] is not None:
            known[key].append(Registration(row[1], row[2], row[3], _attempt(row, 4), row[16], row[17]))
    return known, parked


async def park(connection: Connection, receipts: Sequence[Receipt]) -> list[str]:
    """Keep receipts that found no attempt: the gateway of each that was not parked before."""
    if not receipts:
        return []
    return [row[0] for row in await connection.fetch(_PARK, *_columns(map(astuple, receipts)))]


async def parked(connection: Connection, keys: Sequence[Key]) -> list[Receipt]:
    """The parked receipts of these ids, matched ones too, oldest first."""
    return [_receipt(row) for row in await connection.fetch(_PARKED, *_columns(keys))]


async def parked_with_reference(connection: Connection, doubts: Sequence[Doubt]) -> list[Receipt]:
    """The parked receipts that repeat the reference and destination of one of these doubts."""
    keys = [(d.gateway, d.reference, d.attempt.destination) for d in doubts]
    return [_receipt(row) for row in await connection.fetch(_PARKED_WITH_REFERENCE, *_columns(keys))]


async def mark_matched(connection: Connection, receipts: Sequence[Receipt]) -> None:
    """These parked receipts have found their attempt: they are kept, and no longer shown."""
    await connection.execute(_MATCHED, *_columns((*r.key, r.id) for r in receipts))


async def unmatched(connection: Connection, gateway: str | None, limit: int) -> list[Receipt]:
    """The parked receipts that have not found their attempt, newest first."""
    return [_receipt(row) for row in await connection.fetch(_UNMATCHED, gateway, limit)]


async def lock_references(connection: Connection, gateways: Iterable[str]) -> None:
    """Let one transaction at a time look for doubts and parked receipts of these gateways. Taken before any id is locked."""
    for gateway in sorted(set(gateways)):
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('receipts.references'), hashtext($1))", gateway)


async def add_doubts(connection: Connection, doubts: Sequence[Doubt]) -> None:
    ordered = sorted(doubts, key=lambda d: d.attempt.coordinates)
    rows = ((d.gateway, d.reference, *astuple(d.attempt), d.doubted_at) for d in ordered)
    await connection.execute(_DOUBT_INSERT, *_columns(rows))


async def end_doubts(connection: Connection, attempts: Sequence[Attempt]) -> None:
    """No receipt will come for these any more."""
    if attempts:
        await connection.execute(_DOUBT_END, *_columns(a.coordinates for a in attempts))


async def open_doubts(connection: Connection, receipts: Sequence[Receipt]) -> list[Doubt]:
    """The doubts, not resolved yet, that have the gateway, reference and destination of one of these receipts."""
    keys = [(r.gateway, r.reference, r.destination) for r in receipts]
    rows = await connection.fetch(_DOUBTS, *_columns(keys))
    return [Doubt(row[0], row[1], _attempt(row, 2), row[14]) for row in rows]


def _columns(rows: Iterable[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Rows as one array per column; there is at least one row."""
    return list(zip(*rows, strict=True))


def _flat(r: Registration) -> tuple[Any, ...]:
    return (r.gateway, r.provider_id, r.reuse, *astuple(r.attempt), r.registered_at, r.resolved_by)


_KINDS = {kind.value: kind for kind in PersonKind}


def _attempt(row: Record, at: int) -> Attempt:
    """The attempt whose columns begin there."""
    message_id, cycle, leg, leg_at, part, parts, try_number, tenant, kind, *others = row[at : at + 12]
    return Attempt(message_id, cycle, leg, leg_at, part, parts, try_number, tenant, _KINDS[kind], *others)


def _receipt(row: Record) -> Receipt:
    gateway, provider_id, id_, state, *others = row
    return Receipt(gateway, provider_id, id_, ReceiptState(state), *others)
