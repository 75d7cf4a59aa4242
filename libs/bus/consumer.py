"""The loop of every service on the hot path: fetch a batch, handle it, commit it, let the next one grow.

    consumer = BatchConsumer(bootstrap_servers, group="resolver", topics=[REQUESTED_HIGH, REQUESTED], handler=handle, producer=producer)
    await consumer.start()         # returns at once; it waits for Kafka in the background
    consumer.ready, consumer.state
    await consumer.stop(budget_seconds=25)

Topics whose name ends in `.high` have a lane of their own, with the group `<group>.high`, which is never paced and never waits for a
normal batch: the handler may run once per lane at the same time. In a normal lane small batches are spaced, 30 ms apart growing to 120 ms
from 60 records up, because a batch's cost hardly depends on its size; meanwhile nothing is fetched, so that the next one holds all
that came. `hurry` cuts a pause short. Batches more than half full come closer together, and a full one is never followed by a pause: the
next is fetched, decoded and prepared while the handler of this one waits for others.

What a handler raises decides: a neighbour's absence (`errors.is_transient`) → the same batch again, with backoff, the partitions kept;
anything else → the batch is halved, in order, until the record is found, and that goes to the dead letters.
What a handler returns stays unfinished and uncommitted, and comes again with the next batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog
from aiokafka.structs import TopicPartition

from libs.bus.backoff import GivenUp, until_done
from libs.bus.dead_letters import LIMIT, OnDeadLetter, reason_of
from libs.bus.errors import TooManyDeadLetters
from libs.bus.kafka_source import KafkaSource
from libs.bus.pacing import PACED, UNPACED, Pacing
from libs.bus.port import Gathering, OpenSource, Partitions, Publisher, Topics
from libs.bus.record import Record
from libs.bus.stream import REBALANCE_TIMEOUT_MS, RecordStream, count_consumed
from libs.contracts.topics import Topic
from libs.service_kit.faults import fault
from libs.service_kit.metrics import BATCH_SECONDS, BATCH_SIZE, CONSUMER_RETRIES

log = structlog.get_logger()

MAX_RECORDS = 2000
DRAIN_SECONDS = 25.0
COMMIT_SECONDS = 0.2
"""The least time between two commits, which cost as much as a small batch. What a crash leaves uncommitted comes again."""
_FETCH_TIMEOUT_MS = 1000
_FETCH_TIMEOUT_HOLDING_MS = 100
"""How soon a record that is held comes again when nothing else does."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records grouped by partition, each in order unless gathered. A handler may see any of them again, and in another grouping."""

    records: Sequence[Record]
    prepared: object = None
    """What `prepare` made of exactly these records, if there was time for it."""
    stream: RecordStream | None = None
    """Where they come from."""

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def next_offsets(self) -> Mapping[TopicPartition, int]:
        """Up to where all is done when this batch is: for a handler that stores offsets with its work."""
        if self.stream is None:
            return {record.source: record.offset + 1 for record in self.records}
        return self.stream.once_finished(self.records)

    def of(self, *topics: Topic) -> list[Record]:
        """Those of these topics."""
        names = {topic.name for topic in topics}
        return [record for record in self.records if record.topic in names]


Handler = Callable[[Batch], Awaitable[Sequence[Record] | None]]
"""Returns the records of the batch that it holds: those it has done nothing about and wants to see again soon."""

Prepare = Callable[[Batch], Awaitable[object]]
"""What can be done for a batch while the one before it is still at work. It changes nothing: its batch may never be handled."""


class BatchConsumer:
    """See the top of this file. `drain_seconds` bounds how long a rebalance waits for the batch in hand.

    Events that name `own_source` are passed over. Without `decode` records come without their events, for a handler that reads them
    itself (`codec.Decoders`), each when it is at hand: `Undecodable`, if it raises that, is a dead letter's reason as it is here.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        group: str,
        topics: Topics,
        handler: Handler,
        producer: Publisher,
        *,
        prepare: Prepare | None = None,
        own_source: str | None = None,
        on_dead_letter: OnDeadLetter | None = None,
        dead_letter_limit: int = LIMIT,
        max_records: int = MAX_RECORDS,
        pacing: Pacing = PACED,
        drain_seconds: float = DRAIN_SECONDS,
        rebalance_timeout_ms: int = REBALANCE_TIMEOUT_MS,
        open_source: OpenSource = KafkaSource,
        gather: Callable[[], Gathering] | None = None,
        decode: bool = True,
    ) -> None:
        if drain_seconds * 1000 >= rebalance_timeout_ms:
            raise ValueError(
                "drain_seconds must be shorter than the rebalance timeout, or the group goes on without us"
            )

        def lane(name: str, topics: Topics, pacing: Pacing) -> _Lane:
            def open_stream(lane: _Lane) -> RecordStream:
                return RecordStream(
                    bootstrap_servers,
                    group=name,
                    topics=topics,
                    producer=producer,
                    on_revoked=lane.drain,
                    on_dead_letter=on_dead_letter,
                    own_source=own_source,
                    limit=dead_letter_limit,
                    rebalance_timeout_ms=rebalance_timeout_ms,
                    open_source=open_source,
                    gathering=gather() if gather is not None else None,
                    decode=decode,
                )

            return _Lane(name, open_stream, handler, prepare, pacing, max_records, drain_seconds)

        high = [topic for topic in topics if isinstance(topic, Topic) and topic.name.endswith(".high")]
        normal = [topic for topic in topics if topic not in high]
        self.groups: dict[str, Topics] = {}
        """Its consumer groups, and what each reads."""
        self._lanes: list[_Lane] = []
        if high:
            self.groups[f"{group}.high" if normal else group] = high
        if normal:
            self.groups[group] = normal
        for name, read in self.groups.items():
            self._lanes.append(lane(name, read, UNPACED if read is high else pacing))

    @property
    def ready(self) -> bool:
        """True while every lane has joined its group and works."""
        return self.state == RUNNING

    @property
    def state(self) -> str:
        """`running`, or what keeps it from it: `starting`, `stopped`, `stopped: too many dead letters`, `stopped: KeyError`, or a
        neighbour that is away."""
        return next((state for lane in self._lanes if (state := lane.shown) != RUNNING), RUNNING)

    async def start(self) -> None:
        for lane in self._lanes:
            lane.start()

    def hurry(self) -> None:
        """Fetch again at once: somebody waits for what came in since the last batch was fetched."""
        for lane in self._lanes:
            lane.hurry()

    async def stop(self, budget_seconds: float = DRAIN_SECONDS) -> None:
        """Take nothing more, finish the batch in hand within the budget (seconds), commit, leave the group."""
        await asyncio.gather(*(lane.stop(budget_seconds) for lane in self._lanes))


RUNNING = "running"
AWAY_FAILURES = 3
"""So often in a row a batch fails, in about a second, before a neighbour counts as away: conflicts pass sooner."""
LEAVE_SECONDS = 6.0
"""What of a stop's budget is left for the last commit, and for leaving the group, where the batch in hand takes the rest."""


class _Lane:
    """One consumer group member and its loop."""

    def __init__(
        self,
        name: str,
        open_stream: Callable[[_Lane], RecordStream],
        handler: Handler,
        prepare: Prepare | None,
        pacing: Pacing,
        max_records: int,
        drain_seconds: float,
    ) -> None:
        self.state = "starting"
        self._name = name
        self._handler = handler
        self._prepare = prepare
        self._pacing = pacing
        self._max_records = max_records
        self._drain_seconds = drain_seconds
        self._stream = open_stream(self)
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
        if self._failures >= AWAY_FAILURES:
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
        await self._finish_in_hand(max(budget_seconds / 2, budget_seconds - LEAVE_SECONDS))
        if self._task is not None:
            if not self._leaving:  # else it would neither commit nor leave
                self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self.state in (RUNNING, "starting"):
            self.state = "stopped"

    async def drain(self, partitions: Partitions) -> None:
        """Before partitions are taken away: wait for the batch in hand, but not for a neighbour to come back."""
        await self._finish_in_hand(self._drain_seconds)

    async def _finish_in_hand(self, seconds: float) -> None:
        self._give_up.set()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
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
        pace = self._pacing.seconds(fetched, self._max_records) if fetched else 0.0
        if pace:
            self._stream.rest(pace)
        started = time.monotonic()
        # What was fetched ahead, or held, before a rebalance is not ours any more, or comes again.
        records = [record for record in (*self._held, *batch) if record.epoch == self._stream.epoch]
        if self._held or len(records) < len(batch):
            batch = Batch(records, stream=self._stream)
        self._held = []
        if fetched >= self._max_records and not self._stopping:
            self._ahead = asyncio.create_task(self._fetch_ahead())
        if records:
            self._idle.clear()
            self._give_up.clear()
            try:
                self._held = await self._work(batch)
            except GivenUp:
                log.warning("consumer.batch_given_up", consumer=self._name, records=len(records))
            finally:
                self._idle.set()
        if (now := time.monotonic()) - self._committed_at >= COMMIT_SECONDS:
            self._committed_at = now
            await self._stream.commit()
        took = time.monotonic() - started
        if records:
            self._sizes.observe(len(records))
            self._seconds.observe(took)
            log.debug("consumer.batch", consumer=self._name, records=len(records), seconds=round(took, 4))
        if pace > took:
            await self._pause(pace - took)

    async def _fetch(self) -> Batch:
        timeout = _FETCH_TIMEOUT_HOLDING_MS if self._held else _FETCH_TIMEOUT_MS
        records = await self._stream.getmany(timeout_ms=timeout, max_records=self._max_records)
        return Batch(records, stream=self._stream)

    async def _fetch_ahead(self) -> Batch:
        batch = await self._fetch()
        if batch and self._prepare is not None:
            with suppress(Exception):  # the handler will meet it too
                return replace(batch, prepared=await self._prepare(batch))
        return batch

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()

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
