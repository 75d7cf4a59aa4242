"""Pages of GET /sms, at any depth of a large outbox."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from uuid import UUID

from libs.contracts.message_ids import first_id
from services.projection.queries import cursor_after
from tests.load.arithmetic import milliseconds
from tests.load.generated_rows import SPREAD, copy_message
from tests.load.ground import Ground
from tests.load.report import Page, Table
from tests.load.system import System
from tests.load.workload import Workload

DEPTHS = (0.0, 0.001, 0.1, 0.5, 0.9, 0.999)
LIMITS = (20, 100)


async def measure(ground: Ground) -> Page:
    plan = ground.plan
    async with ground.own(warm=False) as place:
        system = place.system
        run = await system.send(system.load(Workload(messages=1)))
        until, rows = datetime.now(UTC), list[tuple[str, ...]]()
        began = time.monotonic()
        [result] = run.results
        await copy_message(system.database, UUID(result.ids[0]), plan.rows, until)
        ground.say(f"{plan.rows:,} rows made in {time.monotonic() - began:.0f} s")
        size = await system.database.fetchval("SELECT pg_database_size(current_database())")
        for query in ("", "&clientId=0001"):
            for limit in LIMITS:
                for depth in DEPTHS:
                    seconds = await _read_pages(system, f"limit={limit}{query}", depth, until, plan.pages)
                    rows.append((f"`limit={limit}{query}`", f"{depth:.1%}", *milliseconds(seconds)))
                    ground.say(" ".join(rows[-1]))
    return Page(
        title=f"Pages of GET /sms at {plan.rows:,} messages",
        words=f"{plan.pages} pages at each depth, one after the other, through the API gateway: the time to the whole answer.",
        tables=[Table(title="Milliseconds", head=("query", "depth", "p50", "p95", "p99"), rows=rows)],
        facts=[
            f"rows copied by SQL from one message, to 1,000 clients, spread over {SPREAD.days} days; {size / 1e9:.1f} GB of database",
            "no other load; each page begins somewhere else near its depth",
        ],
        system=place.conditions,
    )


async def _read_pages(system: System, query: str, depth: float, until: datetime, pages: int) -> list[float]:
    """Seconds, in order of length."""
    chance = random.Random(depth)
    seconds: list[float] = []
    for _ in range(pages):
        path = f"/sms?{query}"
        if depth:
            share = min(0.9999, depth * chance.uniform(0.95, 1.0))
            path += f"&cursor={cursor_after(first_id(until - share * SPREAD))}"
        began = time.perf_counter()
        status, page = await system.api.call("GET", path)
        seconds.append(time.perf_counter() - began)
        assert status == 200, page
        assert page["items"], "an empty page"
    return sorted(seconds)
