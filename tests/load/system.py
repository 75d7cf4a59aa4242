"""A running system, and what is sent through it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg

from deploy.local.run import DEFAULT_CONFIG
from deploy.local.stack import Stack
from libs.contracts.message_ids import first_id
from libs.contracts.topics import STATUS
from tests.end_to_end.client import Api, Carrier
from tests.load import storage
from tests.load.arrivals import arrivals
from tests.load.load_process import load_processes
from tests.load.post_load import SAMPLE, Load, Result
from tests.load.processes import busy_seconds, cpu_between, loop_seconds, pids_of, usage
from tests.load.runs import Run
from tests.load.workload import CLIENTS, PHONE, Workload, client_id

CONNECTIONS = 64
PIPELINE = 16
"""Requests under way per connection; of bulk requests one."""
RATE_CONNECTIONS = 8
RECEIPT_DELAY_MS = 500
"""From the carrier's acceptance to its receipt. On a network this takes seconds."""
STATUSES_PER_MESSAGE = 2
"""`submitted` and `delivered`."""
POLL_SECONDS = 0.05
STALLED_SECONDS = 30.0


class System:
    """`number` is that of the next message: each text is used once."""

    def __init__(self, stack: Stack, api: Api, database: asyncpg.Connection) -> None:
        self.stack = stack
        self.api = api
        self.database = database
        self.carrier = Carrier(stack)
        self._number = 1

    async def prepare(self) -> None:
        await self.carrier.steer(receipts={"delay_ms": RECEIPT_DELAY_MS})
        await self.api.put_clients({client_id(n): PHONE % n for n in range(CLIENTS)})

    def take_numbers(self, count: int) -> range:
        first, self._number = self._number, self._number + count
        return range(first, self._number)

    def load(self, work: Workload, *, rate: float | None = None, keys: str | None = None) -> Load:
        """A load of new messages: what `work` says but for their numbers."""
        return Load(
            url=self.stack.url,
            api_key=self.stack.api_key,
            work=replace(work, first=self.take_numbers(work.messages).start),
            connections=RATE_CONNECTIONS if rate else CONNECTIONS,
            pipeline=1 if work.bulk else PIPELINE,
            rate=rate,
            keys=keys,
        )

    async def send(self, *loads: Load, stopped: Iterable[str] = ()) -> Run:
        """Send these loads at once, and return when all of it is delivered, each message once; fail otherwise.

        `stopped`: processes that stand still until everything is accepted.
        """
        last_entry = self.carrier.last()
        statuses = await self.statuses()
        written, loop = await self._written(), loop_seconds()
        async with load_processes(loads) as processes:
            busy, used = busy_seconds(), usage(pids_of(self.stack))
            with suspended(self.stack, stopped):
                results = await asyncio.gather(*(process.run() for process in processes))
            for load, result in zip(loads, results, strict=True):
                assert result.statuses == {202: load.work.requests}, f"not all was accepted: {result}"
            began = min(result.began for result in results)
            await self.all_delivered(began, sum(load.work.messages for load in loads), statuses)
            seconds = time.time() - began
            after, busy = usage(pids_of(self.stack)), busy_seconds() - busy
        cpu = cpu_between(used, after)
        cpu["load generator"] = sum(result.cpu_seconds for result in results)
        growth = (await self._written()).since(written)
        await self._read_some(results)
        return Run(
            loads=loads,
            results=results,
            began=began,
            seconds=seconds,
            arrivals=self.arrivals(loads, last_entry),
            cpu=cpu,
            memory={name: now.resident_bytes for name, now in after.items()},
            elsewhere=max(0.0, busy - sum(cpu.values())) / seconds,
            growth=growth,
            loop=(loop + loop_seconds()) / 2,
        )

    def arrivals(self, loads: Sequence[Load], last_entry: int) -> dict[int, float]:
        """When the carrier read each message from the default gateway. It accepted each exactly once, or this fails."""
        system_id = self.stack.configuration.gateway(self.stack.configuration.default_gateway).system_id
        sent = {number for load in loads for number in load.work.numbers}
        return arrivals(self.stack.directory / "carrier", last_entry, sent, system_id)

    async def _delivered(self, began: float) -> int:
        """Of the messages accepted since then (seconds since the epoch)."""
        oldest = first_id(datetime.fromtimestamp(began, UTC) - timedelta(milliseconds=1))
        tenants = sorted({key.tenant for key in self.stack.configuration.api_keys})
        return await storage.delivered_since(self.database, tenants, str(oldest))

    async def statuses(self) -> int:
        """How many status events are in the outbox: much cheaper to ask for than how many messages are delivered."""
        return await storage.folded(self.database, STATUS.name)

    async def all_delivered(self, began: float, messages: int, statuses_before: int) -> None:
        """Return when the outbox shows every message as delivered; fail when it gets no further."""
        expected = statuses_before + STATUSES_PER_MESSAGE * messages
        progress, since = (0, 0), time.monotonic()
        while progress[1] < messages:
            await asyncio.sleep(POLL_SECONDS)
            done, statuses = 0, await self.statuses()
            if statuses >= expected or time.monotonic() - since > STALLED_SECONDS / 2:
                done = await self._delivered(began)
            if (now := (statuses, done)) > progress:
                progress, since = now, time.monotonic()
            assert time.monotonic() - since < STALLED_SECONDS, f"{done} of {messages} delivered, and no more"

    async def _read_some(self, results: Sequence[Result]) -> None:
        ids = [message_id for result in results for message_id in result.ids]
        for sms in await self.api.read_all(random.sample(ids, min(SAMPLE, len(ids)))):
            assert sms["status"] == "delivered", sms

    async def _written(self) -> storage.Written:
        return await storage.written(self.database, self.stack.directory / "kafka")


@contextmanager
def suspended(stack: Stack, names: Iterable[str]) -> Generator[None]:
    """These processes stand still within."""
    processes = [stack.process(name) for name in names]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


@asynccontextmanager
async def running_system(
    config: Path = DEFAULT_CONFIG,
    extra: Mapping[str, Mapping[str, str]] | None = None,
    say: Callable[[str], None] = print,
) -> AsyncGenerator[System]:
    """A system with nothing in it but clients; stopped and removed in the end."""
    with TemporaryDirectory(prefix="postrider-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # PostgreSQL, which runs as another user when we are root, must reach its data
        async with Stack(config, directory, extra=extra, say=say) as stack, Api(stack.url, stack.api_key) as api:
            database = await asyncpg.connect(stack.postgres_dsn)
            try:
                system = System(stack, api, database)
                await system.prepare()
                yield system
            finally:
                await database.close()
