"""POST /sms/bulk, end to end."""

from __future__ import annotations

from tests.load import tables
from tests.load.ground import Ground
from tests.load.report import Page, load_generator
from tests.load.workload import Workload


async def measure(ground: Ground) -> Page:
    place, plan = await ground.shared(), ground.plan
    work = Workload(messages=plan.messages, bulk=plan.bulk)
    runs = [await place.system.send(place.system.load(work, keys=f"bulk-{run}-")) for run in range(plan.runs)]
    return Page(
        title="Bulk, end to end",
        words=f"From the first `POST /sms/bulk` of {plan.bulk:,} messages to the last `delivered` readable. After each run the "
        "carrier's ledger holds every text exactly once.",
        tables=[tables.rates(runs, "POST → 202, read to its end"), tables.processes(runs), tables.disk(runs)],
        facts=[load_generator(runs[0].loads), "an Idempotency-Key for each request"],
        system=place.conditions,
    )
