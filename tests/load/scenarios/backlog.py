"""A gateway with a long backlog, and another that sends at full speed beside it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from deploy.local.run import DEFAULT_CONFIG
from libs.contracts import topics
from tests.load import storage
from tests.load.arithmetic import spread
from tests.load.dispatches import publish_dispatches
from tests.load.ground import Ground
from tests.load.processes import pids_of, usage
from tests.load.progress import reached
from tests.load.report import Page, Table, load_generator, megabytes
from tests.load.runs import Run
from tests.load.system import System
from tests.load.tables import LOOP, in_a_line
from tests.load.workload import Workload

SLOW = "slow"


async def measure(ground: Ground) -> Page:
    plan = ground.plan
    async with _slow_gateway() as config, ground.own(config) as place:
        system = place.system
        alone = await _runs(ground, system)
        await publish_dispatches(system.stack.kafka, SLOW, system.take_numbers(plan.backlog))
        topic = topics.dispatch(SLOW).name
        await reached(lambda: storage.folded(system.database, topic), plan.backlog, "in the outbox")
        waiting = {name: used.resident_bytes for name, used in usage(pids_of(system.stack)).items()}
        beside = await _runs(ground, system)
    rows = [
        ("end to end per second", *(spread([run.per_second for run in runs], ",.0f") for runs in (alone, beside))),
        ("CPU per message (µs)", *(spread([run.cpu_us for run in runs], ".0f") for runs in (alone, beside))),
        (LOOP, *(spread([run.loop * 1000 for run in runs], ".0f") for runs in (alone, beside))),
    ]
    memory = [
        (name, megabytes(alone[-1].memory[name]), megabytes(size), megabytes(beside[-1].memory[name]))
        for name, size in waiting.items()
    ]
    return Page(
        title=f"A backlog of {plan.backlog:,} in one gateway",
        words="Single POSTs through one gateway, without and with a backlog that waits before another, which sends one segment a second.",
        tables=[
            Table(
                title=f"Median (min–max) of {plan.runs} runs of {plan.messages:,} messages",
                head=("", "no backlog", f"{plan.backlog:,} waiting"),
                rows=rows,
            ),
            Table(
                title="Memory in MB",
                words="Resident; PostgreSQL's is that of its largest process, shared buffers included.",
                head=("process", "no backlog", f"{plan.backlog:,} waiting", "and after sending beside it"),
                rows=memory,
            ),
        ],
        facts=[
            "the backlog is put into the gateway's topic, and is in the outbox as `queued`",
            load_generator(alone[0].loads),
        ],
        system=place.conditions,
    )


@asynccontextmanager
async def _slow_gateway() -> AsyncGenerator[Path]:
    """The default configuration and one more gateway, to the same carrier."""
    configuration = yaml.safe_load(DEFAULT_CONFIG.read_text())
    slow = {**configuration["gateways"][0], "id": SLOW, "systemId": SLOW, "segmentsPerSecond": 1}
    configuration["gateways"].append(slow)
    with TemporaryDirectory(prefix="postrider-bench-") as directory:
        path = Path(directory) / "two-gateways.yaml"
        path.write_text(yaml.safe_dump(configuration))
        yield path


async def _runs(ground: Ground, system: System) -> list[Run]:
    runs: list[Run] = []
    for _ in range(ground.plan.runs):
        runs.append(await system.send(system.load(Workload(messages=ground.plan.messages))))
        ground.say(in_a_line(runs[-1]))
    return runs
