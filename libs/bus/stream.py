"""Records of a consumer group, decoded, with commits up to the lowest unfinished one: what every consumer here is built on.

    stream = RecordStream(cluster, "dispatcher.demo", [dispatch("demo")], producer, on_revoked=drain)
    await stream.start()                                     # waits for Kafka, the topics and an assignment
    records = await stream.getmany(timeout_ms=100, max_records=500)   # list[Record]; [] after the timeout
    stream.finished(records)                                 # in any order, in any portions, also from other tasks
    await stream.commit()                                    # up to the lowest unfinished record of each partition
    await stream.stop()

Undecodable records are in the dead letters, and finished, before `getmany` returns. In a rebalance `getmany` waits, `on_revoked` is
awaited while the partitions are still ours (finish there what is in flight, in less than the rebalance timeout), what is finished
then is committed, and the rest is forgotten: `finished` ignores it from then on, and its new owner gets it again. `epoch`
changes as soon as a rebalance begins.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from libs.bus.codec import Decoders, said_by
from libs.bus.dead_letters import LIMIT, DeadLetters, OnDeadLetter, reason_of
from libs.bus.errors import Undecodable
from libs.bus.kafka_source import KafkaSource
from libs.bus.port import Found, Gathering, Offsets, OnRebalance, OpenSource, Partitions, Publisher, Topics
from libs.bus.record import Record
from libs.bus.watermarks import Watermarks
from libs.contracts.events import Reason
from libs.service_kit.backoff import GivenUp
from libs.service_kit.kafka import Cluster
from libs.service_kit.metrics import CONSUMER_LAG, RECORDS_CONSUMED

log = structlog.get_logger()

REBALANCE_TIMEOUT_MS = 40_000
"""How long the group waits in a rebalance until a member has given its partitions back: longer than any of them may take to finish what
it has in hand, or the group would go on without it."""
LAG_EVERY_SECONDS = 5.0
_DECODED_AT_ONCE = 250
"""After so many records, about a millisecond, other tasks have a turn: the handler of another batch goes on if PostgreSQL has answered."""
_GATHERING_MS = 100
"""How soon a record that is kept back to be gathered is looked at again."""
_partition_of: Callable[[Record], TopicPartition] = attrgetter("source")
_topic_of: Callable[[Record], str] = attrgetter("source.topic")


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a service reads its records, where it is not as all others do."""

    own_source: str | None = None
    """Events that name it as their source are passed over: what a service publishes to a topic that it also reads comes back to it."""
    on_dead_letter: OnDeadLetter | None = None
    """See `DeadLetters`."""
    dead_letter_limit: int = LIMIT
    """So many dead letters in a row are taken before `TooManyDeadLetters` is raised."""
    open_source: OpenSource = KafkaSource
    gather: Callable[[], Gathering] | None = None
    """Makes what keeps records back, one for each stream."""
    decode: bool = True
    """Without, records come without their events, for a handler that reads them itself with `codec.Decoders`. What that can't decode goes
    to the dead letters for the same reason as it would here."""


DEFAULTS = StreamOptions()


class RecordStream:
    """See the top of this file. `producer` is for dead letters, `on_revoked` is awaited before partitions are taken away."""

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        topics: Topics,
        producer: Publisher,
        on_revoked: OnRebalance | None = None,
        options: StreamOptions = DEFAULTS,
    ) -> None:
        self.epoch = 0
        """Changes as soon as partitions are being taken away: what was delivered before is ours no longer than `on_revoked` runs."""
        self.fetched = 0
        """How many records the last `getmany` fetched, or handed on if those are more. What it passed over or could not decode counts."""
        self.missing: str | None = None
        """What keeps it from reading, as far as was seen lately."""
        self._owned_epoch = 0  # of the records that may be finished: follows `epoch` once the partitions are gone
        self._group = group
        self._is_own = None if options.own_source is None else said_by(options.own_source)
        self._decoders = Decoders(topics) if options.decode else None
        self._marks = Watermarks()
        self._on_revoked = on_revoked
        self._gathering = None if options.gather is None else options.gather()
        self._more_gathered = False
        limit, on_dead_letter = options.dead_letter_limit, options.on_dead_letter
        # Two runs: that a record can be decoded must not end a run of those that can't be handled.
        self._undecodables = DeadLetters(producer, group, limit=limit, on_dead_letter=on_dead_letter)
        self._dead_letters = DeadLetters(producer, group, limit=limit, on_dead_letter=on_dead_letter)
        self._give_up = asyncio.Event()
        self._lag_task: asyncio.Task[None] | None = None
        self._source = options.open_source(
            cluster,
            group=group,
            topics=topics,
            on_revoked=self._revoked,
            on_assigned=self._assigned,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
        )

    async def start(self) -> None:
        """Join the group; waits as long as it takes."""
        await self._source.start()
        self._lag_task = asyncio.create_task(self._watch_lag())

    async def stop(self) -> None:
        """Leave the group. Commits nothing: do that before, when what is to be finished is finished."""
        self._give_up.set()
        if self._lag_task is not None:
            self._lag_task.cancel()
            with suppress(asyncio.CancelledError):
                await self._lag_task
        partitions = self.assignment()
        await self._source.stop()
        self._forget(partitions)

    def assignment(self) -> Partitions:
        return self._source.assignment()

    def unfinished(self) -> int:
        """How many records are delivered and not finished."""
        return self._marks.unfinished()

    def rest(self, seconds: float) -> None:
        """Let what comes within so many seconds come together, unless `getmany` is called before. See `port.Source`."""
        self._source.rest(seconds)

    async def getmany(self, *, timeout_ms: int, max_records: int) -> list[Record]:
        """The next records, grouped by partition, each in order unless gathered. Kafka's absence is waited out. Cancel it only to stop.

        Raises `TooManyDeadLetters`.
        """
        self.fetched = 0
        wanted, timeout_ms = self._wanted(timeout_ms)
        found = await self._source.fetch(wanted, timeout_ms=timeout_ms, max_records=max_records)
        epoch = self.epoch  # not before: a fetch outlives a rebalance and then brings what is ours since
        found = self._gathered(self._delivered(found), max_records)
        records = await self._decoded(found, epoch)
        return records if self.epoch == epoch else []

    def _wanted(self, timeout_ms: int) -> tuple[Partitions, int]:
        """From which partitions to fetch, and how long to wait for something."""
        assigned, gathering = self.assignment(), self._gathering
        if gathering is None:
            return assigned, timeout_ms
        wanted = gathering.wanted(assigned)
        if not gathering:
            return wanted, timeout_ms
        return wanted, 0 if self._more_gathered else min(timeout_ms, _GATHERING_MS)

    def _delivered(self, found: Found) -> Found:
        """What was found, without what the service published itself. Marks what is to be finished before it may be committed."""
        self.fetched = sum(map(len, found.values()))
        if self._is_own is not None:
            return {partition: self._others(partition, each, self._is_own) for partition, each in found.items()}
        for partition, each in found.items():
            self._marks.delivered(partition, [record.offset for record in each])
        return found

    def _others(
        self, partition: TopicPartition, records: Sequence[Record], is_own: Callable[[bytes], bool]
    ) -> list[Record]:
        """Those that the service did not publish itself. The rest is finished by passing it over."""
        others = [record for record in records if record.raw is None or not is_own(record.raw)]
        if records:
            self._marks.delivered(partition, [record.offset for record in others], records[-1].offset + 1)
        RECORDS_CONSUMED.labels(partition.topic).inc(len(records) - len(others))
        return others

    def _gathered(self, found: Found, most: int) -> Found:
        """What is to be handled now, of what was found and of what was kept back before."""
        if self._gathering is None:
            return found
        found = self._gathering.pass_on(found, most)
        passed_on = sum(map(len, found.values()))
        self._more_gathered = passed_on >= most
        self.fetched = max(self.fetched, passed_on)
        return found

    async def _decoded(self, found: Found, epoch: int) -> list[Record]:
        """The records with their events. What can't be decoded goes to the dead letters. Ends early when the partitions are taken away."""
        now = time.monotonic()
        records: list[Record] = []
        for partition, of_partition in found.items():
            if self._decoders is None:
                for record in of_partition:
                    record.epoch, record.delivered_at = epoch, now
                records += of_partition
                continue
            decode = self._decoders[partition.topic]
            good = len(records)
            for record in of_partition:
                record.epoch, record.delivered_at = epoch, now
                try:
                    record.event = decode(record.raw)
                except Undecodable as error:
                    if len(records) > good:
                        self._undecodables.succeeded()
                        good = len(records)
                    with suppress(GivenUp):
                        await self._put_away(self._undecodables, record, reason_of(error))
                    if self.epoch != epoch:
                        return []
                else:
                    records.append(record)
                    if len(records) % _DECODED_AT_ONCE == 0:
                        await asyncio.sleep(0)
            if len(records) > good:
                self._undecodables.succeeded()
        return records

    async def dead_letter(self, record: Record, reason: Reason) -> None:
        """Put a record that can't be handled into the dead letters, and finish it.

        Raises `TooManyDeadLetters`, and `GivenUp` if the partitions are taken away, or the stream stops, while Kafka is away.
        """
        await self._put_away(self._dead_letters, record, reason)

    async def _put_away(self, letters: DeadLetters, record: Record, reason: Reason) -> None:
        await letters.send(record, reason, give_up=self._give_up)
        self.finished([record])

    def succeeded(self) -> None:
        """Something was handled, so a run of dead letters is over."""
        self._undecodables.succeeded()
        self._dead_letters.succeeded()

    def hurry(self) -> None:
        """Deliver at once what is kept back to be gathered."""
        if self._gathering is not None:
            self._gathering.hurry()

    def once_finished(self, records: Sequence[Record]) -> Offsets:
        """What may be committed of their partitions when these are finished, for a handler that stores offsets with its work."""
        offsets: dict[TopicPartition, set[int]] = {}
        for partition, run in groupby(records, _partition_of):
            offsets.setdefault(partition, set()).update(record.offset for record in run)
        return self._marks.once_finished(offsets)

    def finished(self, records: Sequence[Record]) -> None:
        """The work of these is durable, or of no use any more: they need not come again."""
        ours = self._owned_epoch
        for partition, run in groupby(records, _partition_of):
            self._marks.finished(partition, [record.offset for record in run if record.epoch == ours])

    async def commit(self) -> bool:
        """Store how far each partition is finished. False if that failed: the next commit covers it, or the records come again."""
        offsets = self._marks.committable()
        if not offsets:
            return True
        epoch = self.epoch
        try:
            await self._source.commit(offsets)
        except (KafkaError, TimeoutError) as error:
            log.warning("bus.commit_failed", group=self._group, error=type(error).__name__)
            return False
        if self.epoch == epoch:
            self._marks.committed(offsets)
        return True

    async def _revoked(self, partitions: Partitions) -> None:
        self.epoch += 1
        self._give_up.set()
        try:
            if self._on_revoked is not None and partitions:
                await self._on_revoked(partitions)
            await self.commit()
        finally:
            self._owned_epoch = self.epoch
            self._forget(partitions)

    async def _assigned(self, partitions: Partitions) -> None:
        self._give_up.clear()
        log.info("bus.assigned", group=self._group, partitions=len(partitions))

    def _forget(self, partitions: Partitions) -> None:
        self._marks.reset(partitions)
        if self._gathering is not None:
            self._gathering.forget()
        hide_lag(partitions)

    async def _watch_lag(self) -> None:
        """Show the lag, and say once when Kafka goes away and when it is back: the fetches wait that out without a word."""
        failures = 0
        while True:
            await asyncio.sleep(LAG_EVERY_SECONDS)
            try:
                self._show_lag(await self._source.lag_bounds())
            except Exception as error:  # whatever it is, a gauge must not stop the work
                failures += 1
                if failures == 2:  # one alone may be a rebalance
                    log.warning("kafka.away", group=self._group, error=type(error).__name__)
                    self.missing = f"waiting for Kafka: {type(error).__name__}"
                    hide_lag(self.assignment())
                continue
            failures = 0
            if self.missing is not None:
                log.info("kafka.back", group=self._group)
                self.missing = None

    def _show_lag(self, bounds: Mapping[TopicPartition, tuple[int, int]]) -> None:
        for partition, (position, end) in bounds.items():
            low = self._marks.low(partition)
            lag = max(0, end - (position if low is None else low))
            CONSUMER_LAG.labels(partition.topic, str(partition.partition)).set(lag)


def hide_lag(partitions: Iterable[TopicPartition]) -> None:
    """Show no lag for these partitions: nothing is known of it any more."""
    for partition in partitions:
        with suppress(KeyError):
            CONSUMER_LAG.remove(partition.topic, str(partition.partition))


def count_consumed(records: Iterable[Record]) -> None:
    """Count records whose work is done, by topic."""
    for topic, number in Counter(map(_topic_of, records)).items():
        RECORDS_CONSUMED.labels(topic).inc(number)
