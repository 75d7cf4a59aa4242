"""Single POSTs, end to end."""

from __future__ import annotations

from tests.load import tables
from tests.load.ground import Ground
from tests.load.report import Page, load_generator
from tests.load.workload import Workload


async def measure(ground: Ground) -> Page:
    place, plan = await ground.shared(), ground.plan
    runs = [await place.system.send(place.system.load(Workload(messages=plan.messages))) for _ in range(plan.runs)]
    return Page(
        title="Single POSTs, end to end",
        words="From the first `POST /sms` to the last `delivered` readable. After each run the carrier's ledger holds every text "
        "exactly once.",
        tables=[tables.rates(runs), tables.processes(runs), tables.disk(runs)],
        facts=[load_generator(runs[0].loads), "no Idempotency-Keys"],
        system=place.conditions,
    )
