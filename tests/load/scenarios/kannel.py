"""Kannel on the same machine, against the same carrier with the same texts: what speeds of ours are worth."""

from __future__ import annotations

from tests.load import tables
from tests.load.arrivals import arrivals, last_entry
from tests.load.ground import Ground
from tests.load.kannel import SYSTEM_ID, WINDOW, Kannel, Setup, running_kannel
from tests.load.kannel_package import install, version
from tests.load.load_process import load_processes
from tests.load.post_load import Load
from tests.load.processes import busy_seconds, cpu_between, loop_seconds, usage
from tests.load.report import MESSAGES, Page
from tests.load.runs import Growth, Run
from tests.load.system import CONNECTIONS, RECEIPT_DELAY_MS
from tests.load.workload import Workload

MOST = 40_000
"""Messages a run."""
SETUPS = {
    "queues in memory": Setup(),
    "queues in a file": Setup(store=True),
    "in memory, its log as it is by default": Setup(quiet=False),
}


async def measure(ground: Ground) -> Page:
    await ground.close()
    install(ground.say)
    runs = {name: await _runs(ground, name, setup) for name, setup in SETUPS.items()}
    rates = {name: tables.rates(each, "GET → 202") for name, each in runs.items()}
    first = next(iter(rates.values()))
    return Page(
        title="Kannel, end to end",
        words="From the first `GET /cgi-bin/sendsms` to the last callback. After each run every callback came once, and the carrier's "
        "ledger holds every text exactly once.",
        tables=[
            tables.side_by_side(first.title, rates),
            tables.side_by_side(
                "CPU per message by process (µs)", {name: tables.processes(each) for name, each in runs.items()}
            ),
        ],
        facts=[
            f"Kannel {version()} (Debian's bearerbox and smsbox)",
            "warm-up: a run of as many messages, each time that Kannel was started",
            MESSAGES,
            f"one transceiver bind, `max-pending-submits` {WINDOW}, no rate limit; `dlr-mask=3`, each receipt handed to a callback "
            "(`dlr-url`) that answers at once; `dlr-storage` internal: what waits for its receipt is in memory alone",
            "in a file: `store-type` file, which Kannel writes without fsync",
            "its log holds errors alone (`-v 3`), in the last column every PDU, as by default",
            f"load generator and receiver of callbacks on raw sockets in a process each, {CONNECTIONS} connections kept alive, 1 request "
            "under way on each (Kannel's server does not pipeline)",
        ],
    )


async def _runs(ground: Ground, name: str, setup: Setup) -> list[Run]:
    messages = min(ground.plan.messages, MOST)
    runs: list[Run] = []
    async with running_kannel(RECEIPT_DELAY_MS, setup) as kannel:
        for number in range(1 + ground.plan.runs):
            runs.append(await _run(kannel, Workload(messages=messages, first=1 + number * messages)))
            ground.say(f"{name}{'' if number else ', warm-up'}: {tables.in_a_line(runs[-1])}")
    return runs[1:]


async def _run(kannel: Kannel, work: Workload) -> Run:
    """Returns when the last callback came."""
    load = Load(
        url=kannel.url, api_key="", work=work, connections=CONNECTIONS, pipeline=1, callbacks=kannel.callbacks_url
    )
    before, loop = last_entry(kannel.ledger), loop_seconds()
    async with load_processes([load]) as [process]:
        busy, used = busy_seconds(), usage(kannel.pids)
        kannel.callbacks.expect(work.numbers)
        result = await process.run()
        assert result.statuses == {202: work.requests}, f"not all was accepted: {result}"
        called = await kannel.callbacks.called()
        after, busy = usage(kannel.pids), busy_seconds() - busy
    assert (called.missing, called.others) == (0, 0), f"not each callback came once: {called}"
    seconds = called.last - result.began
    cpu = cpu_between(used, after)
    cpu["load generator"] = result.cpu_seconds
    return Run(
        loads=[load],
        results=[result],
        began=result.began,
        seconds=seconds,
        arrivals=arrivals(kannel.ledger, before, set(work.numbers), SYSTEM_ID),
        cpu=cpu,
        memory={name: now.resident_bytes for name, now in after.items()},
        elsewhere=max(0.0, busy - sum(cpu.values())) / seconds,
        growth=Growth(wal=0, tables={}, kafka=0),
        loop=(loop + loop_seconds()) / 2,
    )
