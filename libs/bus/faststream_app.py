"""A handler per event, on FastStream: for what is rare and reads best so (contact changes). The hot path is `consumer.py`.

    app = FastStreamApp(cluster, "resolver", producer)
    app.subscribe(CONTACT_CHANGED, group="resolver.contacts", handler=on_contact_changed)
    await app.start()              # returns at once; it waits for Kafka in the background
    app.ready, app.state
    await app.stop()

What FastStream 0.7.8 would do by itself is turned off here; the tests pin each point to the real broker:
- by default a record is committed before it is handled: NACK_ON_ERROR commits after success;
- that policy seeks back on an error, at once and for ever, also for a body that can't be decoded: here no error reaches it.
  Decoding happens inside the handler, bad data goes to the dead letters, a neighbour's absence is waited out in place;
- a run of dead letters stops the subscriber, and nothing is committed past;
- its commit takes the consumed position of all partitions, which is right only as long as one record is handled at a time;
- before any handler it reads the headers as text, and passes over a record for good whose headers are none: it is shown none;
- it reads what a transaction published before that is committed: here only what is;
- Context and dependencies cost a thread hop per message: no injection (`apply_types=False`);
- it logs every message, and errors with their text: no logger;
- it creates missing topics with one partition: not allowed to.
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

from libs.bus.backoff import GivenUp, delays, until_done
from libs.bus.codec import decoder
from libs.bus.dead_letters import LIMIT, DeadLetters, OnDeadLetter, reason_of
from libs.bus.errors import TooManyDeadLetters, Undecodable
from libs.bus.kafka_source import HEARTBEAT_INTERVAL_MS, MAX_PARTITION_FETCH_BYTES, SESSION_TIMEOUT_MS
from libs.bus.port import Publisher
from libs.bus.record import Record
from libs.bus.stream import LAG_EVERY_SECONDS, hide_lag
from libs.contracts.events import Reason
from libs.contracts.topics import Topic
from libs.service_kit.faults import fault
from libs.service_kit.kafka import Cluster, Mechanism
from libs.service_kit.metrics import CONSUMER_LAG, CONSUMER_RETRIES, RECORDS_CONSUMED

log = structlog.get_logger()

DRAIN_SECONDS = 10.0
REBALANCE_TIMEOUT_MS = 20_000  # longer than DRAIN_SECONDS
ANSWER_SECONDS = 5.0
RUNNING = "running"
TOMBSTONE = Reason("tombstone", "the record has no value: what is deleted must be said by an event")
"""In a compacted topic of others there may be any number of them."""
_A_DAY_MS = 24 * 3600 * 1000

_LOGINS: dict[Mechanism, type[SASLPlaintext | SASLScram256 | SASLScram512]] = {
    "PLAIN": SASLPlaintext,
    "SCRAM-SHA-256": SASLScram256,
    "SCRAM-SHA-512": SASLScram512,
}

Parse = Callable[[ConsumerRecord[bytes, bytes]], Awaitable[KafkaMessage]]
EventHandler = Callable[[Any], Awaitable[None]]
"""Takes one event, as in `async def on_contact_changed(event: Event[ContactChanged]) -> None`. It may see any event again."""


class FastStreamApp:
    """See the top of this file. The producer is for dead letters."""

    def __init__(self, cluster: Cluster, client_id: str, producer: Publisher) -> None:
        self._client_id = client_id
        self._producer = producer
        self._subscriptions: list[_Subscription] = []
        self._starting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._state = "starting"
        self.broker = KafkaBroker(
            cluster.bootstrap_servers.split(","),  # it takes a string for one broker
            security=_security(cluster),
            client_id=client_id,
            request_timeout_ms=REBALANCE_TIMEOUT_MS + 10_000,
            consumer_only=True,
            allow_auto_create_topics=False,
            apply_types=False,
            graceful_timeout=DRAIN_SECONDS,
            logger=None,
        )

    def subscribe(
        self,
        topic: Topic,
        group: str,
        handler: EventHandler,
        *,
        on_dead_letter: OnDeadLetter | None = None,
        dead_letter_limit: int = LIMIT,
    ) -> None:
        """Call the handler for each event of the topic, one at a time. Before `start`."""
        letters = DeadLetters(self._producer, group, limit=dead_letter_limit, on_dead_letter=on_dead_letter)
        subscription = _Subscription(topic, group, handler, letters)
        subscriber = self.broker.subscriber(
            topic.name,
            group_id=group,
            ack_policy=AckPolicy.NACK_ON_ERROR,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            max_poll_interval_ms=_A_DAY_MS,
            max_partition_fetch_bytes=MAX_PARTITION_FETCH_BYTES,
            isolation_level="read_committed",
            listener=subscription,
            parser=_without_headers,
            decoder=_as_record,
            no_reply=True,
            title=f"{group}:{topic.name}",
        )
        subscriber(subscription.consume)
        subscription.stop_subscriber = subscriber.stop
        subscription.consumer = lambda: subscriber.consumer
        self._subscriptions.append(subscription)

    @property
    def ready(self) -> bool:
        return self.state == RUNNING

    @property
    def state(self) -> str:
        """`running`, or what keeps it from it: `starting`, `stopped`, `stopped: too many dead letters`, or Kafka's silence."""
        missing = next((words for each in self._subscriptions if (words := each.stopped or each.missing)), "")
        return missing if self._state == RUNNING and missing else self._state

    async def start(self) -> None:
        self._starting = asyncio.create_task(self._start(), name=f"start {self._client_id}")
        self._watching = asyncio.create_task(self._watch_lag())

    async def stop(self) -> None:
        """Finish the events in hand, within `DRAIN_SECONDS`, commit, leave the groups."""
        for task in (self._starting, self._watching):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        for subscription in self._subscriptions:
            subscription.give_up.set()
        await self.broker.stop()
        for subscription in self._subscriptions:
            await subscription.closed()
        self._state = "stopped"

    async def _watch_lag(self) -> None:
        while True:
            await asyncio.sleep(LAG_EVERY_SECONDS)
            for subscription in self._subscriptions:
                await subscription.show_lag()

    async def _start(self) -> None:
        for delay in delays():
            try:
                await self.broker.start()
                self._state = RUNNING
                return
            except (KafkaError, OSError) as error:
                log.warning("kafka.consumer_waits", group=self._client_id, error=type(error).__name__)
                await self.broker.stop()
            except Exception as error:
                self._state = f"stopped: {type(error).__name__}"
                log.error("consumer.stopped", consumer=self._client_id, fault=fault(error))
                return
            await asyncio.sleep(delay)


class _Subscription(ConsumerRebalanceListener):
    """One topic's handler with the rules around it, and what a rebalance must wait for."""

    def __init__(self, topic: Topic, group: str, handler: EventHandler, letters: DeadLetters) -> None:
        self.give_up = asyncio.Event()
        self.stopped = ""
        self.stop_subscriber: Callable[[], Awaitable[None]]
        self.consumer: Callable[[], AIOKafkaConsumer | None]
        self.missing = ""
        self._topic = topic.name
        self._closing: asyncio.Task[None] | None = None
        self._handler = handler
        self._decode = decoder(topic)
        self._letters = letters
        self._group = group
        self._idle = asyncio.Event()
        self._idle.set()
        self._consumed = RECORDS_CONSUMED.labels(topic.name)
        self._retries = CONSUMER_RETRIES.labels(group)

    async def consume(self, record: Record) -> None:
        """Returning commits the record. `NackMessage` leaves it uncommitted: it comes again, to whoever owns the partition then."""
        if self.stopped:
            raise NackMessage
        self._idle.clear()
        try:
            await self._handle(record)
        except GivenUp:
            raise NackMessage from None
        except TooManyDeadLetters as error:
            self._stop("stopped: too many dead letters", why=str(error))
            raise NackMessage from None
        except Exception as error:
            self._stop(f"stopped: {type(error).__name__}", fault=fault(error))
            raise NackMessage from None
        finally:
            self._idle.set()

    async def _handle(self, record: Record) -> None:
        if record.raw is None:
            await self._letters.send(record, TOMBSTONE, give_up=self.give_up)
            return
        try:
            event = self._decode(record.raw)
        except Undecodable as error:
            await self._letters.send(record, reason_of(error), give_up=self.give_up)
            return
        try:
            await until_done(
                lambda: self._handler(event),
                what=self._group,
                give_up=self.give_up,
                on_retry=lambda _: self._retries.inc(),
            )
        except GivenUp:
            raise
        except Exception as error:
            await self._letters.send(record, reason_of(error), give_up=self.give_up)
            return
        self._letters.succeeded()
        self._consumed.inc()

    async def show_lag(self) -> None:
        """Show how far it is behind; while Kafka does not say, show nothing, and say so."""
        consumer = self.consumer()
        if consumer is None or self.stopped:
            return
        assigned = consumer.assignment()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                ends = await consumer.end_offsets(assigned)
                lags = {each.partition: end - await consumer.position(each) for each, end in ends.items()}
            self.missing = ""
        except Exception as error:
            self.missing = f"Kafka does not answer: {type(error).__name__}"
            hide_lag(assigned)
            return
        for partition, lag in lags.items():
            CONSUMER_LAG.labels(self._topic, str(partition)).set(lag)

    def _stop(self, state: str, **why: str) -> None:
        self.stopped = state
        log.error("consumer.stopped", consumer=self._group, **why)
        self._closing = asyncio.create_task(self._close())

    async def _close(self) -> None:
        await self.stop_subscriber()

    async def closed(self) -> None:
        """Wait until a subscriber that stopped itself has left its group."""
        if self._closing is not None:
            await self._closing

    async def on_partitions_revoked(self, revoked: frozenset[TopicPartition]) -> None:
        self.give_up.set()
        hide_lag(revoked)
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._idle.wait()

    async def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> None:
        self.give_up.clear()


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
