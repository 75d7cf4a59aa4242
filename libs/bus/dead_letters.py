"""Where records go that can't be handled: unchanged to `<topic>.dead-letter`, with headers that say what they were and why.

A run of them without a success between is a sign that the fault is ours, not theirs, so there is a limit to it. What a handler knows to be
the data's own fault (`BadRecord`) is not part of a run: else whoever can make such records could stop the consumer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime

import structlog

from libs.bus.errors import HANDLER_ERROR, PERHAPS_OURS, UNDECODABLE, BadRecord, RecordTooLarge, TooManyDeadLetters
from libs.bus.port import Outgoing, Publisher
from libs.bus.record import Record
from libs.contracts.events import Reason
from libs.contracts.topics import DEAD_LETTER, Topic
from libs.service_kit.backoff import GivenUp, until_done
from libs.service_kit.faults import fault
from libs.service_kit.metrics import DEAD_LETTERS, from_zero

log = structlog.get_logger()

LIMIT = 20
"""Dead letters in a row, with nothing handled between, after which a consumer stops: the fault is likely its own."""
WITHOUT_CONTENT = "dead-letter-without-content"
"""The header of a dead letter whose record was too large to be kept: its size in octets. It came compressed better than we compress."""

OnDeadLetter = Callable[[Record, Reason], Awaitable[None]]


def reason_of(error: BaseException) -> Reason:
    """Why a record can't be handled, in words that hold nothing of its content."""
    if isinstance(error, BadRecord):
        return error.reason
    return Reason(HANDLER_ERROR, fault(error))


def count_from_zero(topics: Iterable[Topic], *own: str) -> None:
    """Show the count of a consumer's dead letters before there are any: by the reasons of every consumer, and by its handler's `own`."""
    from_zero(DEAD_LETTERS, (topic.name for topic in topics), (HANDLER_ERROR, UNDECODABLE, *own))


class DeadLetters:
    """The dead letters of one consumer.

    `on_dead_letter` is called for each once it is stored, so that a service can tell the history of its message (`poison.tell_history`).
    Its own faults are logged and change nothing.
    """

    def __init__(
        self, producer: Publisher, group: str, *, limit: int = LIMIT, on_dead_letter: OnDeadLetter | None = None
    ) -> None:
        self._producer = producer
        self._group = group
        self._limit = limit
        self._on_dead_letter = on_dead_letter
        self._run = 0

    def succeeded(self) -> None:
        """A record was handled: the run is over."""
        self._run = 0

    async def send(self, record: Record, reason: Reason, *, give_up: asyncio.Event) -> None:
        """Store a record as a dead letter, of one that is too large only what it was and why; waits for Kafka as long as it takes.

        Raises `TooManyDeadLetters`, and stores nothing, when the run is at its limit; `GivenUp` when told to while Kafka is away.
        """
        counts = reason.code in PERHAPS_OURS
        if counts and self._run >= self._limit:
            raise TooManyDeadLetters(f"{self._run} in a row for {self._group}; the next is {_place(record)}")
        topic, headers = record.topic + DEAD_LETTER, self._headers(record, reason)
        try:
            await self._publish(Outgoing(topic, record.key, record.raw, [*record.headers, *headers]), give_up)
        except RecordTooLarge:
            size = len(record.key or b"") + len(record.raw or b"")
            headers.append((WITHOUT_CONTENT, str(size).encode()))
            await self._publish(Outgoing(topic, None, None, headers), give_up)
        self._run += int(counts)
        DEAD_LETTERS.labels(record.topic, reason.code).inc()
        log.warning("bus.dead_letter", record=_place(record), group=self._group, reason=reason.code, words=reason.words)
        if self._on_dead_letter is not None:
            hook = self._on_dead_letter
            try:
                await until_done(lambda: hook(record, reason), what="dead letter's hook", give_up=give_up)
            except GivenUp:
                raise
            except Exception as error:
                log.warning("bus.dead_letter_hook_failed", record=_place(record), fault=fault(error))

    async def _publish(self, letter: Outgoing, give_up: asyncio.Event) -> None:
        await until_done(lambda: self._producer.publish_many([letter]), what="dead letter", give_up=give_up)

    def _headers(self, record: Record, reason: Reason) -> list[tuple[str, bytes]]:
        return [
            ("dead-letter-reason", reason.code.encode()),
            ("dead-letter-words", reason.words.encode()),
            ("dead-letter-topic", record.topic.encode()),
            ("dead-letter-partition", str(record.partition).encode()),
            ("dead-letter-offset", str(record.offset).encode()),
            ("dead-letter-group", self._group.encode()),
            ("dead-letter-time", datetime.now(UTC).isoformat(timespec="milliseconds").encode()),
        ]


def _place(record: Record) -> str:
    return f"{record.topic}/{record.partition}@{record.offset}"
