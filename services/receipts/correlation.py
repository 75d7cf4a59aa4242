"""Ids from submits meet ids from receipts, in whatever order they come and on whichever replica.

Both sides lock the same row, reuse 0 of the id, before they conclude that the other has not come yet: what finds no partner is stored
under that lock, so the one that comes later must see it. Keys are locked sorted, and references before keys, so nobody waits in a
circle. All is stored when these functions return; what they answer is to be published, also when it comes a second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from libs.service_kit.metrics import RECEIPTS_PARKED
from libs.storage.partitions import Connection
from services.receipts import store
from services.receipts.matching import Doubt, Key, Match, Receipt, Registration, next_reuse, pair, place, resolve
from services.receipts.recent import Known, RecentRegistrations


async def register(connection: Connection, offered: Sequence[Registration], recent: RecentRegistrations) -> list[Match]:
    """Attempts got their ids. Answers the early receipts that waited for them."""
    offered = sorted(offered, key=attrgetter("key"))
    if await store.insert_new(connection, offered) == len(offered):
        recent.put({(r.gateway, r.provider_id): [r] for r in offered})
        return []
    recent.forget(r.key for r in offered)
    return await _register_again(connection, offered)


async def _register_again(connection: Connection, offered: Sequence[Registration]) -> list[Match]:
    """The same where some of the ids were known: named by a receipt before, given anew by the carrier, or registered already."""
    known, parked = await store.read(connection, _keys(offered))
    unsettled = [r for r in offered if r.key in parked or place(r, known[r.key]) is not None]
    if not unsettled:
        return []
    keys = _keys(unsettled)
    async with connection.transaction():
        await store.lock(connection, keys, parked=False)
        known, parked = await store.read(connection, keys)
        added: list[Registration] = []
        for r in unsettled:
            if (placed := place(r, known[r.key])) is not None:
                known[r.key].append(placed)
                added.append(placed)
        await store.write(connection, added)
        return await _early(connection, sorted(parked), known)


async def doubt(connection: Connection, doubts: Sequence[Doubt], recent: RecentRegistrations) -> list[Match]:
    """Attempts are, or were, in doubt. Answers the receipts that had come for them already.

    What is disproved is noted too: another process may say so before the doubt is told.
    """
    async with connection.transaction():
        await store.lock_references(connection, (d.gateway for d in doubts))
        await store.add_doubts(connection, doubts)
        await store.end_doubts(connection, [d.attempt for d in doubts if d.disproved])
        receipts = await store.parked_with_reference(connection, doubts)
        matches, _ = await _settle(connection, receipts, recent) if receipts else ([], [])
        return matches


async def match(
    connection: Connection, receipts: Sequence[Receipt], recent: RecentRegistrations
) -> tuple[list[Match], list[Receipt]]:
    """Receipts came. Answers those whose attempt is known, and those to be settled; stores nothing."""
    keys = {(r.gateway, r.provider_id) for r in receipts}
    known = recent.known(keys)
    if unread := sorted(keys - known.keys()):
        found, _ = await store.read(connection, unread)
        known.update(found)
    matches, unsettled = _pair_all(receipts, known)
    # What a doubt's receipt brought about is answered whole each time it comes: see `_settle`.
    if any(m.resolves_doubt for m in matches):
        unsettled += [m.receipt for m in matches if m.resolves_doubt]
        matches = [m for m in matches if not m.resolves_doubt]
    return matches, unsettled


async def settle(connection: Connection, receipts: Sequence[Receipt], recent: RecentRegistrations) -> list[Match]:
    """Receipts found no attempt: end a doubt with them, or park them. Answers what was found after all."""
    async with connection.transaction():
        await store.lock_references(connection, (r.gateway for r in receipts if r.reference is not None))
        matches, parked = await _settle(connection, receipts, recent)
    for gateway in parked:
        RECEIPTS_PARKED.labels(gateway).inc()
    return matches


async def _settle(
    connection: Connection, receipts: Sequence[Receipt], recent: RecentRegistrations
) -> tuple[list[Match], list[str]]:
    """Match receipts under the lock of their ids, or end a doubt with them, or park them. Answers also the gateway of each that was not
    parked before.

    A receipt that ends a doubt also answers for what was parked under its id until then.
    """
    keys = _keys(receipts)
    recent.forget(keys)
    await store.lock(connection, keys, parked=True)
    known, _ = await store.read(connection, keys)
    await _resolve(connection, receipts, known)
    matches, lonely = _pair_all(receipts, known)
    parked = await store.park(connection, lonely)
    resolved = sorted({m.receipt.key for m in matches if m.resolves_doubt})
    early = await _early(connection, resolved, known) if resolved else []
    return list({m.receipt.id: m for m in (*early, *matches)}.values()), parked


async def _resolve(connection: Connection, receipts: Iterable[Receipt], known: Known) -> None:
    """Register the ids of receipts that end a doubt, in `known` and in the store."""
    candidates = [r for r in receipts if r.reference is not None and r.destination is not None]
    if not candidates:
        return
    doubts = await store.open_doubts(connection, candidates)
    added: list[Registration] = []
    for r in sorted(candidates, key=lambda r: (r.observed_at, r.id)):
        if pair(r, known[r.key]) is not None:
            continue  # it had its registration, or the one before it has registered their id
        found = resolve(r, doubts, {a.attempt for a in added})
        if found is not None:
            named = Registration(r.gateway, r.provider_id, next_reuse(known[r.key]), found.attempt, r.observed_at, r.id)
            known[r.key].append(named)
            added.append(named)
    await store.write(connection, added)


async def _early(connection: Connection, keys: Sequence[Key], known: Known) -> list[Match]:
    """The parked receipts of these ids, locked by us, that have found their attempt."""
    if not keys:
        return []
    matches, _ = _pair_all(await store.parked(connection, keys), known)
    if matches:
        await store.mark_matched(connection, [m.receipt for m in matches])
    return matches


def _pair_all(receipts: Iterable[Receipt], known: Known) -> tuple[list[Match], list[Receipt]]:
    matches: list[Match] = []
    lonely: list[Receipt] = []
    for r in receipts:
        registration = pair(r, known[r.gateway, r.provider_id])
        if registration is None:
            lonely.append(r)
        else:
            matches.append(Match(r, registration))
    return matches, lonely


def _keys(items: Iterable[Registration | Receipt]) -> list[Key]:
    return sorted({(item.gateway, item.provider_id) for item in items})
