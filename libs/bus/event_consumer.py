"""One topic and a handler that takes one event at a time, on FastStream: for what is rare (contact changes). The hot path is `consumer`.

    changes = EventConsumer(cluster, CONTACT_CHANGED, "resolver.contacts", on_contact_changed, producer)
    await changes.start()          # returns at once; it waits for Kafka in the background
    changes.ready, changes.state
    await changes.stop(budget_seconds=10)

What FastStream 0.7.8 does by default, and what is done about it here. The tests show each on a real broker:
- it commits a record before it is handled: with NACK_ON_ERROR it commits after success;
- with that policy it seeks back on an error, at once and for ever, also for a value that can't be decoded: here no error reaches it.
  Values are decoded inside the handler, bad data goes to the dead letters, and while a neighbour is away the event is tried again in place;
- after a run of dead letters the subscriber is stopped, and nothing is committed past them;
- its commit takes the consumed position of all partitions, which is right only as long as one record is handled at a time: so it is here;
- it reads the headers as text before any handler runs, and skips a record for good if they are not text: here it is shown no headers;
- it also reads what a transaction has not committed: here only what is committed;
- Context and dependencies cost a thread hop per message: no injection (`apply_types=False`);
- it logs every message, and errors with their text: no logger;
- it creates missing topics with one partition: it is not allowed to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition
from faststream import AckPolicy
from faststream.exceptions import NackMessage
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from libs.bus.codec import decoder
from libs.bus.dead_letters import DeadLetters, reason_of
from libs.bus.errors import TooManyDeadLetters
from libs.bus.kafka_source import HEARTBEAT_INTERVAL_MS, MAX_PARTITION_FETCH_BYTES, SESSION_TIMEOUT_MS, require_topics
from libs.bus.port import Publisher
from libs.bus.record import Record
from libs.bus.stream import LAG_EVERY_SECONDS, hide_lag
from libs.contracts.events import Reason
from libs.contracts.topics import DAY_MS, Topic
from libs.service_kit.backoff import GivenUp, delays, until_done
from libs.service_kit.faults import fault
from libs.service_kit.kafka import Cluster, Mechanism
from libs.service_kit.metrics import CONSUMER_LAG, CONSUMER_RETRIES, RECORDS_CONSUMED
from libs.service_kit.waiting import set_within

log = structlog.get_logger()

DRAIN_SECONDS = 10.0
REBALANCE_TIMEOUT_MS = 20_000  # longer than DRAIN_SECONDS
LAG_SECONDS = 5.0
"""How long Kafka may take to say how far behind it is."""
RUNNING = "running"
TOMBSTONE = Reason("tombstone", "the record has no value: what is deleted must be said by an event")
"""Others publish to the topic, which may be compacted: so there may be any number of tombstones, and they don't count as a run."""

_LOGINS: dict[Mechanism, type[SASLPlaintext | SASLScram256 | SASLScram512]] = {
    "PLAIN": SASLPlaintext,
    "SCRAM-SHA-256": SASLScram256,
    "SCRAM-SHA-512": SASLScram512,
}

Parse = Callable[[ConsumerRecord[bytes, bytes]], Awaitable[KafkaMessage]]
EventHandler = Callable[[Any], Awaitable[None]]
"""Takes one event, as in `async def on_contact_changed(event: Event[ContactChanged]) -> None`. It may see any event again."""


class EventConsumer(ConsumerRebalanceListener):
    """See the top of this file. The producer is for dead letters."""

    def __init__(self, cluster: Cluster, topic: Topic, group: str, handler: EventHandler, producer: Publisher) -> None:
        self._topic = topic.name
        self._group = group
        self._handler = handler
        self._decode = decoder(topic)
        self._letters = DeadLetters(producer, group)
        self._starting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._joined = False
        self._missing = ""
        self._stopped = ""
        self._give_up = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._consumed = RECORDS_CONSUMED.labels(topic.name)
        self._retries = CONSUMER_RETRIES.labels(group)
        self._broker = KafkaBroker(
            cluster.bootstrap_servers.split(","),  # FastStream takes a string for one broker
            security=_security(cluster),
            client_id=group,
            request_timeout_ms=REBALANCE_TIMEOUT_MS + 10_000,
            consumer_only=True,
            allow_auto_create_topics=False,
            apply_types=False,
            graceful_timeout=DRAIN_SECONDS,
            logger=None,
        )
        self._subscriber = self._broker.subscriber(
            topic.name,
            group_id=group,
            ack_policy=AckPolicy.NACK_ON_ERROR,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            max_poll_interval_ms=DAY_MS,
            max_partition_fetch_bytes=MAX_PARTITION_FETCH_BYTES,
            isolation_level="read_committed",
            listener=self,
            parser=_without_headers,
            decoder=_as_record,
            no_reply=True,
        )
        self._subscriber(self._consume)

    @property
    def ready(self) -> bool:
        return self.state == RUNNING

    @property
    def state(self) -> str:
        """`running`, or what keeps it from it: `starting`, `stopped`, `stopped: too many dead letters`, `stopped: KeyError`, or that
        Kafka does not answer or lacks the topic."""
        if self._stopped or not self._joined:
            return self._stopped or "starting"
        return self._missing or RUNNING

    async def start(self) -> None:
        self._starting = asyncio.create_task(self._start(), name=f"start {self._group}")
        self._watching = asyncio.create_task(self._watch_lag())

    async def stop(self, budget_seconds: float = DRAIN_SECONDS) -> None:
        """Take nothing more, finish the event in hand within the budget (seconds, `DRAIN_SECONDS` at most), commit, leave the group."""
        for task in (self._starting, self._watching):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        self._give_up.set()
        self._broker.config.broker_config.graceful_timeout = min(budget_seconds, DRAIN_SECONDS)
        await self._broker.stop()
        if self._leaving is not None:
            await self._leaving
        self._stopped = "stopped"

    async def _start(self) -> None:
        for delay in delays():
            try:
                await self._broker.start()
                self._joined = True
                return
            except (KafkaError, OSError) as error:
                log.warning("kafka.consumer_waits", group=self._group, error=type(error).__name__)
                await self._broker.stop()
            except Exception as error:
                self._fail(type(error).__name__, fault=fault(error))
                return
            await asyncio.sleep(delay)

    async def _consume(self, record: Record) -> None:
        """Returning commits the record. `NackMessage` leaves it uncommitted: it comes again, to whoever owns the partition then."""
        if self._stopped:
            raise NackMessage
        self._idle.clear()
        try:
            await self._handle(record)
        except GivenUp:
            raise NackMessage from None
        except TooManyDeadLetters as error:
            self._fail("too many dead letters", why=str(error))
            raise NackMessage from None
        except Exception as error:
            self._fail(type(error).__name__, fault=fault(error))
            raise NackMessage from None
        finally:
            self._idle.set()

    async def _handle(self, record: Record) -> None:
        if record.raw is None:
            await self._letters.send(record, TOMBSTONE, give_up=self._give_up)
            return
        try:
            event = self._decode(record.raw)
            await until_done(
                lambda: self._handler(event),
                what=self._group,
                give_up=self._give_up,
                on_retry=lambda _: self._retries.inc(),
            )
        except GivenUp:
            raise
        except Exception as error:
            await self._letters.send(record, reason_of(error), give_up=self._give_up)
            return
        self._letters.succeeded()
        self._consumed.inc()

    def _fail(self, what: str, **why: str) -> None:
        """Read no further, and leave the group beside what is in hand."""
        self._stopped = f"stopped: {what}"
        log.error("consumer.stopped", consumer=self._group, **why)
        self._leaving = asyncio.create_task(self._subscriber.stop())

    async def _watch_lag(self) -> None:
        while True:
            await asyncio.sleep(LAG_EVERY_SECONDS)
            if (consumer := self._subscriber.consumer) is not None and not self._stopped:
                await self._show_lag(consumer)

    async def _show_lag(self, consumer: AIOKafkaConsumer) -> None:
        """Show how far it is behind; while Kafka does not say, show nothing, and say so."""
        assigned = consumer.assignment()
        try:
            require_topics(consumer)
            async with asyncio.timeout(LAG_SECONDS):
                ends = await consumer.end_offsets(assigned)
                lags = {each.partition: end - await consumer.position(each) for each, end in ends.items()}
        except Exception as error:  # whatever it is, a gauge must not stop the work
            self._missing = f"waiting for Kafka: {type(error).__name__}"
            hide_lag(assigned)
            return
        self._missing = ""
        for partition, lag in lags.items():
            CONSUMER_LAG.labels(self._topic, str(partition)).set(lag)

    async def on_partitions_revoked(self, revoked: frozenset[TopicPartition]) -> None:
        self._give_up.set()
        hide_lag(revoked)
        await set_within(self._idle, DRAIN_SECONDS)

    async def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> None:
        self._give_up.clear()


def _security(cluster: Cluster) -> BaseSecurity:
    if login := cluster.login:
        return _LOGINS[login.mechanism](login.username, login.password, ssl_context=cluster.tls)
    return BaseSecurity(ssl_context=cluster.tls)


async def _without_headers(record: ConsumerRecord[bytes, bytes], parse: Parse) -> KafkaMessage:
    message = await parse(replace(record, headers=()))
    message.raw_message = record
    return message


async def _as_record(message: KafkaMessage) -> Record:
    raw = message.raw_message
    if isinstance(raw, tuple):
        raise TypeError("batches are read by libs.bus.consumer")
    return Record(TopicPartition(raw.topic, raw.partition), raw.offset, raw.key, raw.value, raw.headers)
