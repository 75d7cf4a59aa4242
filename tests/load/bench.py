"""`make bench`: messages through a whole system of its own, from the first POST to the last final status readable.

Prints what it measures, and writes it with its conditions to docs/benchmarks/.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from deploy.local.run import DEFAULT_CONFIG
from deploy.local.stack import Stack
from deploy.local.topology import REPOSITORY
from tests.end_to_end.client import Api, Carrier
from tests.load import report
from tests.load.figures import CLIENTS, CONNECTIONS, PIPELINE, RECEIPT_DELAY_MS, FixedRate, FullSpeed, Measured, Plan
from tests.load.post_load import Load, MakeBody, Result, run
from tests.load.processes import busy_seconds, pids_of, usage

FIXED_RATE_SECONDS = 20
SAMPLE = 100
"""Messages read back over the API after each run."""
STATUSES_PER_MESSAGE = 2
"""`submitted` and `delivered`."""
POLL_SECONDS = 0.05
STALLED_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What one run came to. Times in seconds, CPU in seconds, `arrivals` at the carrier since the epoch in the order of the messages."""

    load: Result
    seconds: float
    arrivals: list[float]
    cpu: dict[str, float]
    elsewhere: float


class Bench:
    """A running system, and what is sent through it."""

    def __init__(self, stack: Stack, api: Api, database: asyncpg.Connection) -> None:
        self._stack = stack
        self._api = api
        self._database = database
        self._carrier = Carrier(stack)
        self._numbers = itertools.count(1)
        self._pids = pids_of(stack)

    async def prepare(self) -> None:
        await self._carrier.steer(receipts={"delay_ms": RECEIPT_DELAY_MS})
        await self._api.put_clients({str(n): f"+2547{n:08}" for n in range(CLIENTS)})

    async def full_speed(self, messages: int) -> FullSpeed:
        """As fast as answers come."""
        outcome = await self._send(messages, "normal", None)
        return FullSpeed(
            messages=messages,
            accepted=outcome.load.per_second,
            end_to_end=messages / outcome.seconds,
            to_202=sorted(outcome.load.latencies),
            cpu={name: seconds / messages * 1e6 for name, seconds in outcome.cpu.items()},
            elsewhere=outcome.elsewhere / outcome.seconds,
        )

    async def fixed_rate(self, rate: float, priority: str) -> FixedRate:
        """So many messages per second."""
        outcome = await self._send(int(rate * FIXED_RATE_SECONDS), priority, rate)
        waits = (at - (outcome.load.began + n / rate) for n, at in enumerate(outcome.arrivals))
        return FixedRate(
            priority=priority,
            to_202=sorted(outcome.load.latencies),
            to_carrier=sorted(waits),
            cores=sum(outcome.cpu.values()) / outcome.seconds,
            elsewhere=outcome.elsewhere / outcome.seconds,
        )

    def peak_bytes(self) -> dict[str, int]:
        return {name: used.peak_bytes for name, used in usage(self._pids).items()}

    async def _send(self, messages: int, priority: str, rate: float | None) -> _Outcome:
        texts, body = _messages(self._numbers, messages, priority)
        load = Load(
            url=self._stack.url,
            api_key=self._stack.api_key,
            messages=messages,
            body=body,
            connections=CONNECTIONS,
            pipeline=PIPELINE,
            rate=rate,
        )
        last_entry = self._carrier.last()
        statuses = await self._statuses_folded()
        busy, before = busy_seconds(), usage(self._pids)
        result = await run(load)
        assert result.statuses == {202: messages}, f"not all were accepted: {result}"
        await self._all_delivered(result.ids, statuses)
        seconds = time.time() - result.began
        cpu = {name: used.cpu_seconds - before[name].cpu_seconds for name, used in usage(self._pids).items()}
        elsewhere = max(0.0, busy_seconds() - busy - sum(cpu.values()))
        for sms in await self._api.read_all(random.sample(result.ids, min(SAMPLE, messages))):
            assert sms["status"] == "delivered", sms
        arrivals = self._arrivals(texts, last_entry)
        return _Outcome(load=result, seconds=seconds, arrivals=arrivals, cpu=cpu, elsewhere=elsewhere)

    async def _statuses_folded(self) -> int:
        """How many events of `sms.status` are in the outbox: much cheaper to ask for than the messages' statuses."""
        query = "SELECT coalesce(sum(next_offset), 0) FROM outbox.offsets WHERE topic = 'sms.status'"
        return int(await self._database.fetchval(query))

    async def _all_delivered(self, ids: Sequence[str], statuses_before: int) -> None:
        """Return when the outbox shows every message as delivered; fail when it gets no further."""
        oldest, expected = min(ids), statuses_before + STATUSES_PER_MESSAGE * len(ids)
        progress, since = (0, 0), time.monotonic()
        while progress[1] < len(ids):
            await asyncio.sleep(POLL_SECONDS)
            delivered, statuses = 0, await self._statuses_folded()
            if statuses >= expected or time.monotonic() - since > STALLED_SECONDS / 2:
                delivered = await self._database.fetchval(
                    "SELECT count(*) FROM outbox.messages WHERE message_id >= $1 AND status = 'delivered'", oldest
                )
            if (now := (statuses, delivered)) > progress:
                progress, since = now, time.monotonic()
            assert time.monotonic() - since < STALLED_SECONDS, f"{delivered} of {len(ids)} delivered, and no more"

    def _arrivals(self, texts: Sequence[str], last_entry: int) -> list[float]:
        """When the carrier read each message. It accepted each exactly once, or this fails."""
        entries = [entry for entry in self._carrier.entries(last_entry) if entry.accepted]
        arrived = {bytes.fromhex(entry.short_message).decode(): entry.received_at / 1e6 for entry in entries}
        assert len(entries) == len(texts), f"the carrier accepted {len(entries)} instead of {len(texts)} messages"
        return [arrived[text] for text in texts]


def _messages(numbers: itertools.count[int], count: int, priority: str) -> tuple[list[str], MakeBody]:
    """Texts of 60 characters, no two alike, and the requests to send them."""
    texts = [f"Dear client, your payment {next(numbers):012} was received. Bye." for _ in range(count)]
    bodies = [
        json.dumps({"message": text, "clientId": str(n % CLIENTS), "priority": priority}).encode()
        for n, text in enumerate(texts)
    ]
    return texts, bodies.__getitem__


async def measure(plan: Plan) -> tuple[Measured, report.Conditions]:
    """Start a system, measure it and stop it."""
    with tempfile.TemporaryDirectory(prefix="postrider-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # PostgreSQL, which runs as another user when we are root, must reach its data
        async with Stack(DEFAULT_CONFIG, directory, say=print) as stack, Api(stack.url, stack.api_key) as api:
            database = await asyncpg.connect(stack.postgres_dsn)
            try:
                conditions = await report.conditions(database, stack)
                return await _measure(Bench(stack, api, database), plan), conditions
            finally:
                await database.close()


async def _measure(bench: Bench, plan: Plan) -> Measured:
    await bench.prepare()
    warm_up = None
    if plan.warm_up:
        warm_up = await bench.full_speed(plan.warm_up)
        print("warm-up:", report.in_a_line(warm_up), flush=True)
    full_speed: list[FullSpeed] = []
    for _ in range(plan.runs):
        full_speed.append(await bench.full_speed(plan.messages))
        print(report.in_a_line(full_speed[-1]), flush=True)
    fixed_rate = [await bench.fixed_rate(plan.rate, priority) for priority in ("normal", "high")]
    return Measured(warm_up=warm_up, full_speed=full_speed, fixed_rate=fixed_rate, peak_bytes=bench.peak_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=40_000, help="per run at full speed")
    parser.add_argument("--runs", type=int, default=3, help="at full speed")
    parser.add_argument("--warmup", type=int, default=200_000, help="messages sent before; 0: none")
    parser.add_argument("--rate", type=float, default=100, help="messages per second where latency is measured")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs" / "benchmarks" / "single-posts.md")
    given = parser.parse_args()
    if given.messages < 1 or given.runs < 1 or given.warmup < 0 or given.rate <= 0:
        parser.error("--messages, --runs and --rate must be above 0, --warmup not below")
    plan = Plan(messages=given.messages, runs=given.runs, warm_up=given.warmup, rate=given.rate)
    measured, conditions = asyncio.run(measure(plan))
    text = report.write(plan, measured, conditions)
    print(text)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(text)


if __name__ == "__main__":
    main()
