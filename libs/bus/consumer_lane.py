"""One consumer group member and its loop: fetch a batch, handle it, commit it, let the next one grow. `consumer.py` says by which rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from libs.bus.batch import Batch, Handler, Prepare
from libs.bus.dead_letters import reason_of
from libs.bus.errors import TooManyDeadLetters
from libs.bus.pacing import Pacing
from libs.bus.port import OnRebalance, Partitions
from libs.bus.record import Record
from libs.bus.stream import RecordStream, count_consumed
from libs.service_kit.backoff import GivenUp, until_done
from libs.service_kit.faults import fault
from libs.service_kit.metrics import BATCH_SECONDS, BATCH_SIZE, CONSUMER_RETRIES
from libs.service_kit.waiting import set_within

log = structlog.get_logger()

MAX_RECORDS = 2000
"""Of a batch."""
DRAIN_SECONDS = 25.0
"""How long a rebalance waits for the batch in hand: less than `stream.REBALANCE_TIMEOUT_MS`, and time to commit."""
_COMMIT_SECONDS = 0.2
"""The least time between two commits, which cost as much as a small batch. What a crash leaves uncommitted comes again."""
_FETCH_TIMEOUT_MS = 1000
_FETCH_TIMEOUT_HOLDING_MS = 100
"""How soon a record that is held comes again when nothing else does."""
RUNNING = "running"
_AWAY_FAILURES = 3
"""After so many failures of a batch in a row, about a second, a neighbour counts as away: conflicts are over sooner."""
_LEAVE_SECONDS = 6.0
"""What the batch in hand leaves of a stop's budget, for the last commit and for leaving the group."""


class ConsumerLane:
    """See the top of this file. `open_stream` is told what to await before partitions are taken away; `pacing` spaces the batches."""

    def __init__(
        self,
        name: str,
        open_stream: Callable[[OnRebalance], RecordStream],
        handler: Handler,
        prepare: Prepare | None,
        pacing: Pacing,
    ) -> None:
        self.state = "starting"
        self._name = name
        self._handler = handler
        self._prepare = prepare
        self._pacing = pacing
        self._stream = open_stream(self.drain)
        self._held: list[Record] = []
        self._committed_at = 0.0
        self._ahead: asyncio.Task[Batch] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._give_up = asyncio.Event()
        self._hurried = asyncio.Event()
        self._stopping = False
        self._leaving = False
        self._failures = 0  # in a row
        self._failed_for = ""
        self._task: asyncio.Task[None] | None = None
        self._sizes = BATCH_SIZE.labels(name)
        self._seconds = BATCH_SECONDS.labels(name)
        self._retries = CONSUMER_RETRIES.labels(name)

    @property
    def shown(self) -> str:
        """Its state; while it runs but can't work, why."""
        if self.state != RUNNING:
            return self.state
        if self._failures >= _AWAY_FAILURES:
            return f"waiting for a neighbour: {self._failed_for}"
        return self._stream.missing or RUNNING

    def _count_retry(self, error: Exception) -> None:
        self._retries.inc()
        self._failures += 1
        self._failed_for = type(error).__name__

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"consumer {self._name}")

    def hurry(self) -> None:
        self._stream.hurry()
        self._hurried.set()

    async def stop(self, budget_seconds: float) -> None:
        self._stopping = True
        await self._finish_in_hand(max(budget_seconds / 2, budget_seconds - _LEAVE_SECONDS))
        if self._task is not None:
            if not self._leaving:  # a cancel would keep it from committing and leaving
                self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self.state in (RUNNING, "starting"):
            self.state = "stopped"

    async def drain(self, partitions: Partitions) -> None:
        """Before partitions are taken away: wait for the batch in hand, but not for a neighbour to come back."""
        await self._finish_in_hand(DRAIN_SECONDS)

    async def _finish_in_hand(self, seconds: float) -> None:
        self._give_up.set()
        if not await set_within(self._idle, seconds):
            log.warning("consumer.drain_too_long", consumer=self._name, seconds=seconds)

    async def _run(self) -> None:
        try:
            await self._stream.start()
            self.state = RUNNING
            while not self._stopping:
                await self._once()
        except TooManyDeadLetters as error:
            self.state = "stopped: too many dead letters"
            log.error("consumer.stopped", consumer=self._name, why=str(error))
        except Exception as error:
            self.state = f"stopped: {type(error).__name__}"
            log.error("consumer.stopped", consumer=self._name, fault=fault(error))
        finally:
            self._leaving = True
            self._idle.set()
            if self._ahead is not None:
                self._ahead.cancel()
                await asyncio.wait([self._ahead])
            try:
                await self._stream.commit()
            except Exception as error:
                log.error("consumer.last_commit_failed", consumer=self._name, fault=fault(error))
            finally:  # else its heartbeats would keep the partitions from its peers
                await self._stream.stop()

    async def _once(self) -> None:
        self._hurried.clear()
        fetching, self._ahead = self._ahead or self._fetch(), None
        batch = await fetching
        fetched = self._stream.fetched
        pace = self._pacing.seconds(fetched, MAX_RECORDS) if fetched else 0.0
        if pace:
            self._stream.rest(pace)
        started = time.monotonic()
        # What was fetched ahead, or held, before a rebalance is not ours any more, or comes again.
        records = [record for record in (*self._held, *batch) if record.epoch == self._stream.epoch]
        if self._held or len(records) < len(batch):
            batch = Batch(records, stream=self._stream)
        self._held = []
        if fetched >= MAX_RECORDS and not self._stopping:
            self._ahead = asyncio.create_task(self._fetch_ahead())
        if records:
            self._idle.clear()
            self._give_up.clear()
            try:
                self._held = await self._work(batch)
            except GivenUp:
                self._failures = 0  # another may have it from now on
                log.warning("consumer.batch_given_up", consumer=self._name, records=len(records))
            finally:
                self._idle.set()
        if (now := time.monotonic()) - self._committed_at >= _COMMIT_SECONDS:
            self._committed_at = now
            await self._stream.commit()
        took = time.monotonic() - started
        if records:
            self._sizes.observe(len(records))
            self._seconds.observe(took)
            log.debug("consumer.batch", consumer=self._name, records=len(records), seconds=round(took, 4))
        if pace > took:
            await set_within(self._hurried, pace - took)

    async def _fetch(self) -> Batch:
        timeout = _FETCH_TIMEOUT_HOLDING_MS if self._held else _FETCH_TIMEOUT_MS
        records = await self._stream.getmany(timeout_ms=timeout, max_records=MAX_RECORDS)
        return Batch(records, stream=self._stream)

    async def _fetch_ahead(self) -> Batch:
        batch = await self._fetch()
        if batch and self._prepare is not None:
            with suppress(Exception):  # the handler will meet it too
                return replace(batch, prepared=await self._prepare(batch))
        return batch

    async def _work(self, whole: Batch) -> list[Record]:
        """Handle a batch; where the data is at fault, in halves, first half first. Answers what is held."""
        epoch = self._stream.epoch
        pending = [whole]
        held: list[Record] = []
        while pending and self._stream.epoch == epoch:
            batch = pending.pop()
            part = batch.records
            try:
                holding = await until_done(
                    lambda batch=batch: self._handler(batch),
                    what=self._name,
                    give_up=self._give_up,
                    on_retry=self._count_retry,
                )
            except GivenUp:
                raise
            except Exception as error:
                self._failures = 0
                if len(part) == 1:
                    await self._stream.dead_letter(part[0], reason_of(error))
                else:
                    middle = len(part) // 2
                    pending += [Batch(part[middle:], stream=self._stream), Batch(part[:middle], stream=self._stream)]
            else:
                self._failures = 0
                if holding:
                    held += holding
                    kept = set(map(id, holding))
                    part = [record for record in part if id(record) not in kept]
                self._stream.succeeded()
                self._stream.finished(part)
                count_consumed(part)
        return held
