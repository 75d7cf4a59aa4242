"""Reads: one message with its parts, and pages of messages, newest first, by key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from asyncpg import Record

from libs.contracts.http.answers import Inbound, InboundPage
from libs.contracts.http.requests import InboundQuery
from libs.contracts.message_ids import first_id
from libs.service_kit.pages import before, cursor_after
from libs.storage.database import Pool
from services.inbound.answers import inbound

_PARTS = "SELECT * FROM parts WHERE message_id = ANY($2::uuid[]) AND tenant = $1"


async def find(pool: Pool, tenant: str, message_id: UUID) -> Inbound | None:
    """The tenant's message."""
    rows = await pool.fetch(_PARTS, tenant, [message_id])
    return inbound(rows) if rows else None


async def page(pool: Pool, tenant: str, query: InboundQuery) -> InboundPage:
    """The next `query.limit` messages that fit. Raises BadCursor."""
    sql, arguments = page_query(tenant, query)
    async with pool.acquire() as connection:
        found = [row[0] for row in await connection.fetch(sql, *arguments)]
        ids = found[: query.limit]
        rows = await connection.fetch(_PARTS, tenant, ids)
    # Of these, some may have been deleted meanwhile; the next page begins after them all the same.
    return InboundPage(
        items=_messages(ids, rows), next_cursor=cursor_after(ids[-1]) if len(found) > query.limit else None
    )


def page_query(tenant: str, query: InboundQuery) -> tuple[str, list[object]]:
    """The statement of a page, and its arguments. It asks for one row more than the page has, to know whether there is a next one."""
    arguments: list[object] = [tenant]
    conditions = ["opens", "tenant = $1"]

    def condition(words: str, value: object) -> None:
        arguments.append(value)
        conditions.append(f"{words} ${len(arguments)}")

    if query.from_ is not None:
        condition("message_id >=", first_id(query.from_))
    if (end := before(query.to, query.cursor)) is not None:
        condition("message_id <", end)
    if query.number is not None:
        condition("sender =", query.number)
    if query.gateway is not None:
        condition("gateway =", query.gateway)
    return (
        f"SELECT message_id FROM parts WHERE {' AND '.join(conditions)}"  # noqa: S608 - arguments are bound
        f" ORDER BY message_id DESC LIMIT {query.limit + 1}",
        arguments,
    )


def _messages(ids: Sequence[UUID], rows: Sequence[Record]) -> tuple[Inbound, ...]:
    by_id: defaultdict[UUID, list[Record]] = defaultdict(list)
    for row in rows:
        by_id[row["message_id"]].append(row)
    return tuple(inbound(by_id[message_id]) for message_id in ids if message_id in by_id)
