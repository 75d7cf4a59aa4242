"""From a dispatch topic to the board, and back: offsets are committed up to the lowest unfinished record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from libs.bus.dead_letters import OnDeadLetter
from libs.bus.errors import INVALID
from libs.bus.pacing import PACED
from libs.bus.port import Partitions, Publisher
from libs.bus.record import Record
from libs.bus.stream import RecordStream, StreamOptions, count_consumed
from libs.contracts import topics
from libs.contracts.events import Encoding, MessageEvent, Priority, Reason, SmsDispatch
from libs.service_kit.backoff import GivenUp
from libs.sms_text.segments import count_segments
from services.dispatcher.board import Board
from services.dispatcher.settings import DispatcherSettings

LARGEST_FETCH = 2000
FETCH_MILLISECONDS = 200
COMMIT_SECONDS = 0.25
SMALLINT_MAX = 32767


class Intake:
    """One topic of a gateway: one for each priority, so that a backlog in one does not hold up the other."""

    def __init__(
        self,
        settings: DispatcherSettings,
        priority: Priority,
        board: Board,
        publisher: Publisher,
        wake: Callable[[], None],
        drain: Callable[[], Awaitable[None]],
        on_dead_letter: OnDeadLetter,
    ) -> None:
        gateway = settings.dispatcher_gateway
        topic = topics.dispatch(gateway, priority)
        self.topic = topic.name
        self._gateway = gateway
        self._settings = settings
        self._paced = priority is not Priority.HIGH
        self._board = board
        self._wake = wake
        self._drain = drain
        self._stream = RecordStream(
            settings.kafka,
            "dispatcher." + topic.name.removeprefix("sms.dispatch."),
            [topic],
            publisher,
            self._revoked,
            StreamOptions(on_dead_letter=on_dead_letter),
        )

    async def run(self) -> None:
        """Join the group, fetch and commit until cancelled; then give everything back and leave."""
        await self._stream.start()
        commits = asyncio.create_task(self._commit_often())
        try:
            while True:
                await self._fetch()
        finally:
            commits.cancel()
            try:
                await self._stream.commit()
            finally:  # else its heartbeats would keep the partitions from its peers
                self._board.withdraw(self.topic)
                await self._stream.stop()

    def finished(self, records: list[Record]) -> None:
        """The work of these records is durable."""
        self._stream.finished(records)
        count_consumed(records)

    async def _fetch(self) -> None:
        if self._stream.unfinished() >= self._settings.dispatcher_most_legs:
            await asyncio.sleep(PACED.floor)
            return
        records = await self._stream.getmany(timeout_ms=FETCH_MILLISECONDS, max_records=LARGEST_FETCH)
        # Fewer, larger claims: only messages that are not urgent pay for them, by a short wait.
        pace = PACED.seconds(len(records), LARGEST_FETCH) if self._paced and records else 0.0
        if pace:
            self._stream.rest(pace)
        with suppress(GivenUp):  # the partitions are being taken away: the rest comes again
            await self._take(records)
        await asyncio.sleep(pace)

    async def _take(self, records: list[Record]) -> None:
        good = 0
        for record in records:
            if record.epoch != self._stream.epoch:
                break
            event: MessageEvent[SmsDispatch] = record.event
            fault = _fault(event, self._gateway)
            if fault is not None:
                await self._stream.dead_letter(record, Reason(INVALID, fault))
            else:
                self._board.add(event, record)
                good += 1
        if good:
            self._wake()
            self._stream.succeeded()

    async def _revoked(self, _: Partitions) -> None:
        await self._drain()
        self._board.withdraw(self.topic)

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            await self._stream.commit()


def _fault(event: MessageEvent[SmsDispatch], gateway: str) -> str | None:
    """Why a record can't be worked on, although it is a dispatch event; None when it can."""
    data = event.data
    if data.gateway != gateway:
        return "data.gateway: the record stands in another gateway's topic"
    if not 1 <= data.leg.cycle <= SMALLINT_MAX:
        return "data.leg.cycle: out of range"
    if not 1 <= data.leg.leg <= SMALLINT_MAX:
        return "data.leg.leg: out of range"
    try:
        segments = count_segments(data.message.text, ucs2=data.encoding is Encoding.UCS2)
    except ValueError as error:
        return f"data.message.text: {error}"
    if segments != data.segments:
        return "data.segments: the text has another number of segments"
    return None
