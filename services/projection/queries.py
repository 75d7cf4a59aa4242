"""Reads of the outbox: one message with its history, and pages of messages, newest first, by key.

Ids sort by the time of acceptance, so a page begins where the last ended and costs the same wherever that is; `from` and `to` are
bounds of ids. Filters on what no index has (status, gateway, tag) are checked along that way: what they cost depends on how rare they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from libs.contracts.events import PersonKind
from libs.contracts.http.answers import Batch, SmsPage, SmsWithHistory
from libs.contracts.http.requests import SmsQuery
from libs.contracts.message_ids import first_id
from libs.contracts.statuses import Status
from libs.service_kit.pages import before, cursor_after
from libs.storage.database import Pool
from services.projection import answers
from services.projection.journal import lines_in
from services.projection.rows import PersonalRow, decode_fold
from services.projection.store import Connection

PARAMETERS = {
    f"enable_{way}": "off" for way in ("sort", "seqscan", "bitmapscan", "hashjoin", "mergejoin", "incremental_sort")
}
"""For the connections that read: every read walks an index in its order and stops when it has enough. Without statistics of a
young partition, the planner would rather read and sort all of a tenant's messages."""

_ONE = "SELECT fold FROM messages WHERE tenant = $1 AND message_id = $2"
_JOURNAL = "SELECT body FROM events WHERE message_id = $1"
_PERSONAL = "SELECT message_id, cycle, leg, phone, person_name, text FROM personal WHERE message_id = ANY($1)"
_OF_BATCH = "FROM messages WHERE tenant = $1 AND message_id BETWEEN $2 AND $3 AND batch = $4"
# Every message of a batch says how many there are: the first that is found is asked, once for the whole statement.
_BATCH = f"""
SELECT status, count(*), (SELECT fold {_OF_BATCH} ORDER BY message_id LIMIT 1) {_OF_BATCH}
GROUP BY status ORDER BY status
"""
_IDS_OF_ONE_MILLISECOND = (1 << 80) - 1
# Each id found in the index on numbers is looked up by itself, newest first, so that the first ones that fit end the query.
_SENT_TO = """
(SELECT DISTINCT message_id AS sent_id FROM personal WHERE {conditions} ORDER BY sent_id DESC) AS sent
CROSS JOIN LATERAL (SELECT * FROM messages WHERE tenant = $1 AND message_id = sent_id LIMIT 1) AS found"""


async def find(pool: Pool, tenant: str, message_id: UUID) -> SmsWithHistory | None:
    """The tenant's message, as of one moment."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        fold: bytes | None = await connection.fetchval(_ONE, tenant, message_id)
        if fold is None:
            return None
        personal = await _personal(connection, [message_id])
        journal = await connection.fetch(_JOURNAL, message_id)
    lines = (line for entry in journal for line in lines_in(message_id, entry["body"]))
    numbers = personal[message_id]
    return answers.with_history(answers.sms(message_id, decode_fold(fold), numbers), lines, numbers)


async def batch(pool: Pool, tenant: str, batch_id: UUID) -> Batch | None:
    """The tenant's batch, counted by status as far as its messages have arrived; None as long as none has."""
    async with pool.acquire() as connection:
        rows = await connection.fetch(_BATCH, tenant, *_ids_beside(batch_id), batch_id)
    if not rows:
        return None
    by_status = {Status(status): count for status, count, _ in rows}
    request = decode_fold(rows[0][2]).request
    known = sum(by_status.values())  # all that there is to say of a batch whose messages don't tell its size
    total = max(known, (request and request.batch_size) or 0)
    return Batch(id=batch_id, total=total, by_status=by_status, location=f"/batches/{batch_id}")


def _ids_beside(batch_id: UUID) -> tuple[UUID, UUID]:
    """Between which ids those of a batch's messages are: they have its millisecond."""
    return UUID(int=batch_id.int & ~_IDS_OF_ONE_MILLISECOND), UUID(int=batch_id.int | _IDS_OF_ONE_MILLISECOND)


async def page(pool: Pool, tenant: str, query: SmsQuery) -> SmsPage:
    """The next `query.limit` messages that fit; a number is asked for in E.164. Raises BadCursor."""
    sql, arguments = page_query(tenant, query)
    async with pool.acquire() as connection:
        rows = await connection.fetch(sql, *arguments)
        more = len(rows) > query.limit
        rows = rows[: query.limit]
        personal = await _personal(connection, [row["message_id"] for row in rows])
    items = tuple(answers.sms(row["message_id"], decode_fold(row["fold"]), personal[row["message_id"]]) for row in rows)
    return SmsPage(items=items, next_cursor=cursor_after(items[-1].id) if more else None)


def page_query(tenant: str, query: SmsQuery) -> tuple[str, list[object]]:
    """The statement of a page, and its arguments. It asks for one row more than the page has, to know whether there is a next one."""
    arguments: list[object] = [tenant]

    def argument(value: object) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    bounds: list[str] = []
    if (end := before(query.to, query.cursor)) is not None:
        bounds.append(f"message_id < {argument(end)}")
    if query.from_ is not None:
        bounds.append(f"message_id >= {argument(first_id(query.from_))}")
    if query.batch_id is not None:
        first, last = _ids_beside(query.batch_id)
        bounds += [f"message_id >= {argument(first)}", f"message_id <= {argument(last)}"]
    source, order = "messages", "message_id"
    if query.number is not None:
        sent_to = " AND ".join([f"phone = {argument(query.number)}", *bounds])
        source, order = _SENT_TO.format(conditions=sent_to), "sent_id"
    conditions = ["tenant = $1", *bounds]
    for kind, person in ((PersonKind.CLIENT, query.client_id), (PersonKind.STAFF, query.staff_id)):
        if person is not None:
            conditions.append(f"kind = {argument(kind)} AND person = {argument(person)}")
    if query.status is not None:
        conditions.append(f"status = {argument(query.status)}")
    if query.gateway is not None:
        conditions.append(f"gateway = {argument(query.gateway)}")
    if query.batch_id is not None:
        conditions.append(f"batch = {argument(query.batch_id)}")
    if query.tag is not None:
        conditions.append(f"{argument(query.tag)} = ANY(tags)")
    # The limit is no argument: without knowing it, PostgreSQL would plan for a tenth of the rows.
    return (
        f"SELECT message_id, fold FROM {source} WHERE {' AND '.join(conditions)}"  # noqa: S608 - arguments are bound
        f" ORDER BY {order} DESC LIMIT {query.limit + 1}",
        arguments,
    )


async def _personal(connection: Connection, message_ids: Sequence[UUID]) -> dict[UUID, list[PersonalRow]]:
    found: dict[UUID, list[PersonalRow]] = defaultdict(list)
    for row in await connection.fetch(_PERSONAL, message_ids):
        found[row["message_id"]].append(PersonalRow(*row))
    for rows in found.values():
        rows.sort(key=lambda row: (row.cycle, row.leg))
    return found
