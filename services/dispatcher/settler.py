"""From an answer to an event: outcomes are stored, then published, then their records are done. All in batches."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import structlog

from libs.bus.pacing import Pacing
from libs.bus.port import Outgoing, Publisher
from libs.bus.record import Record
from libs.contracts.without_receipt import NOT_ASKED
from libs.service_kit.backoff import until_done
from libs.service_kit.config_file import Gateway, InDoubt
from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import LATE_ANSWERS, SETTLED
from libs.service_kit.waiting import set_within
from services.dispatcher.attempts import (
    Attempt,
    LegState,
    Outcome,
    count_of,
    deferral,
    is_concluded,
    is_first_sending,
    may_come_back,
    refused_for_now,
    word_of,
)
from services.dispatcher.board import Board
from services.dispatcher.drivers.port import Result, Verdict
from services.dispatcher.ledger import LateEvent, Ledger, Settled
from services.dispatcher.publications import events_of
from services.dispatcher.sender import Sent

log = structlog.get_logger()

OUTCOMES: dict[Verdict, Outcome] = {
    Verdict.ACCEPTED: Outcome.ACCEPTED,
    Verdict.TEMPORARY: Outcome.TEMPORARY,
    Verdict.THROTTLED: Outcome.THROTTLED,
    Verdict.FAILED: Outcome.FAILED,
    Verdict.NOT_SENT: Outcome.NOT_SENT,
    Verdict.NO_ANSWER: Outcome.DOUBT,
}

LOOK_AGAIN_SECONDS = 0.5
"""How often a leg is read again while another instance has an attempt of it under way."""
PACING = Pacing(floor=0.03, ceiling=0.06, full_at=100)
"""The time between two rounds, so that they are fewer and larger. It slows no sending: an answer makes room in the window at once."""
RETRY_FIRST_SECONDS = 1.0
RETRY_LAST_SECONDS = 60.0
"""How long a part that was refused for now waits for its next try: doubling, less up to a half."""


class Settler:
    """Takes results and legs to look at; `done` takes the records whose work is durable."""

    def __init__(
        self,
        gateway: Gateway,
        ledger: Ledger,
        board: Board,
        publisher: Publisher,
        done: Callable[[Sequence[Record]], None],
        wake: Callable[[], None],
    ) -> None:
        self._gateway = gateway
        self._ledger = ledger
        self._board = board
        self._publisher = publisher
        self._done = done
        self._wake_sender = wake
        self._resend_once = gateway.in_doubt is InDoubt.RESEND_ONCE
        self._loop = asyncio.get_running_loop()
        self._results: list[Settled] = []
        self._looks: dict[int, LegState] = {}
        self._later_looks: list[tuple[float, LegState]] = []
        self._work = asyncio.Event()
        self._busy = False

    @property
    def idle(self) -> bool:
        """Whether everything that was taken is stored, published and done; legs that wait for others' attempts aside."""
        return not (self._busy or self._results or self._looks)

    def take(self, results: Sequence[Result]) -> None:
        """Results of attempts of this instance."""
        observed_at = datetime.now(UTC)
        for result in results:
            sent = result.token
            assert isinstance(sent, Sent)
            self._results.append(Settled(sent.leg, self._outcome(sent, result, observed_at)))
        self._work.set()

    def look(self, legs: Sequence[LegState]) -> None:
        """Legs that hold attempts which this instance does not know."""
        for leg in legs:
            self._looks[id(leg)] = leg
        self._work.set()

    async def run(self) -> None:
        """Work through what comes, until cancelled."""
        while True:
            now = self._loop.time()
            due = [leg for moment, leg in self._later_looks if moment <= now]
            self._later_looks = [(moment, leg) for moment, leg in self._later_looks if moment > now]
            self.look(due)
            if not self._results and not self._looks:
                self._work.clear()
                if not await set_within(self._work, LOOK_AGAIN_SECONDS if self._later_looks else None):
                    continue
            pace = PACING.seconds(len(self._results))
            self._busy = True
            try:
                await self._round()
            finally:
                self._busy = False
            await asyncio.sleep(pace - (self._loop.time() - now))

    async def _round(self) -> None:
        settled = self._next_results()
        looks, self._looks = list(self._looks.values()), {}
        events: list[Outgoing] = []
        late: list[LateEvent] = []
        if settled:
            crash_point("dispatcher.response-store")
            told: set[int] = set()
            for leftover in await until_done(lambda: self._ledger.settle(settled), what="store outcomes"):
                if stored := await self._late(leftover):
                    late += stored
                    told.add(id(leftover))
            for one in settled:
                self._apply(one)
                if id(one) not in told:
                    events += self._events(one.leg, one.attempt)
            for outcome, count in Counter(one.attempt.outcome for one in settled).items():
                SETTLED.labels(self._gateway.id, word_of(outcome)).inc(count)
        touched = {id(one.leg): one.leg for one in settled}
        for leg in await self._read(looks):
            touched[id(leg)] = leg
            if not self._elsewhere(leg):  # else it is read again, and told then
                for attempt in leg.attempts:
                    events += self._events(leg, attempt)
        for leg in touched.values():
            events += await self._defer(leg)
        crash_point("dispatcher.store-publish")
        if events or late:
            outgoing = events + [each.event for each in late]
            await until_done(lambda: self._publisher.publish_many(outgoing), what="publish outcomes")
        crash_point("dispatcher.publish-commit")
        if late:
            await until_done(lambda: self._ledger.forget_events(late), what="forget late events")
        records: list[Record] = []
        for leg in touched.values():
            records += self._next(leg)
        if records:
            self._done(records)
        self._wake_sender()

    def _next_results(self) -> list[Settled]:
        """The results to store now: one of each attempt, since one statement stores them all. Its late answer is for the next round."""
        first: dict[tuple[int, int, int], Settled] = {}
        later: list[Settled] = []
        for one in self._results:
            if first.setdefault((id(one.leg), one.attempt.part, one.attempt.try_number), one) is not one:
                later.append(one)
        self._results = later
        return list(first.values())

    async def publish_orphans(self) -> None:
        """Publish the late events of instances that are gone."""
        while events := await self._ledger.orphaned_events(500):
            await self._publisher.publish_many([each.event for each in events])
            await self._ledger.forget_events(events)

    async def _late(self, settled: Settled) -> list[LateEvent]:
        """Store an answer whose row had an outcome before, and let `settled` say what the row says then. Gives the events to publish."""
        leg = settled.leg
        resend = self._resends(leg)
        may_open = not resend and may_come_back(leg, settled.attempt, self._gateway.tries)
        row, events = await until_done(
            lambda: self._ledger.settle_late(settled, may_open, resend, lambda a: events_of(leg, a, resend)),
            what="store a late outcome",
        )
        LATE_ANSWERS.labels(self._gateway.id, word_of(row.outcome)).inc()
        settled.attempt = row
        return events

    def _apply(self, settled: Settled) -> None:
        """Take an outcome into the leg, once it is stored: what follows from it may be claimed from then on."""
        attempts, stored = settled.leg.attempts, settled.attempt
        for place, known in enumerate(attempts):
            if known.part == stored.part and known.try_number == stored.try_number:
                attempts[place] = stored

    async def _read(self, legs: list[LegState]) -> list[LegState]:
        """Take the stored attempts into the legs; what dead instances left without an outcome is in doubt from now on."""
        legs = [leg for leg in legs if leg.records]
        if not legs:
            return []
        found = await until_done(lambda: self._ledger.read(legs), what="read attempts")
        orphans = [leg for leg in legs if any(a.outcome is None and a.owner_dead for a in found.get(leg.key, []))]
        if orphans:
            doubtful = await until_done(lambda: self._ledger.declare_doubt(orphans), what="declare doubt")
            SETTLED.labels(self._gateway.id, word_of(Outcome.DOUBT_BY_PEER)).inc(doubtful)
            log.warning("attempts in doubt", gateway=self._gateway.id, segments=doubtful)
            found.update(await until_done(lambda: self._ledger.read(orphans), what="read attempts"))
        for leg in legs:
            own = [a for a in leg.attempts if a.ours and a.outcome is None]
            rows = [
                a
                for a in found.get(leg.key, [])
                if not any(o.part == a.part and o.try_number == a.try_number for o in own)
            ]
            leg.attempts = own + rows
        return legs

    async def _defer(self, leg: LegState) -> list[Outgoing]:
        """Let a message of several parts that is refused for now come back as a whole, if it may; what is told of that."""
        tries = self._gateway.tries
        if deferral(leg, leg.attempts, tries) is None:
            return []
        row = await until_done(lambda: self._ledger.defer(leg, tries), what="defer a message")
        if row is None:  # more was stored of the leg than is known here: the next claim finds it
            return []
        leg.attempts.append(row)
        return self._events(leg, row)

    def _next(self, leg: LegState) -> list[Record]:
        """What becomes of a leg now; its records if it is done."""
        if id(leg) in self._looks:  # more is stored of it than is known here: the next round reads that, and tells it
            return []
        if is_concluded(leg):
            return self._board.finish(leg)
        now = self._loop.time()
        if self._elsewhere(leg):
            self._later_looks.append((now + LOOK_AGAIN_SECONDS, leg))
            return []
        refusals = max((count_of(leg, part, Outcome.TEMPORARY) for part in range(1, leg.parts + 1)), default=0)
        if refusals:
            delay = min(RETRY_FIRST_SECONDS * 2 ** (refusals - 1), RETRY_LAST_SECONDS)
            self._board.queue_at(leg, now + delay * (0.5 + random.random() / 2))  # noqa: S311 - jitter
        else:
            self._board.queue(leg)
        return []

    def _elsewhere(self, leg: LegState) -> bool:
        """Whether an attempt is in flight whose answer will not come to this leg.

        It is another instance's, or this one's from before a rebalance.
        """
        return any(a.outcome is None and not a.ours for a in leg.attempts)

    def _outcome(self, sent: Sent, result: Result, observed_at: datetime) -> Attempt:
        outcome = OUTCOMES[result.verdict]
        if outcome is Outcome.TEMPORARY:
            outcome = refused_for_now(sent.leg, sent.attempt, self._gateway.tries, observed_at)
        attempt, code, words = sent.attempt, result.code, result.words
        if outcome is Outcome.ACCEPTED and not self._gateway.reports(attempt.part, sent.leg.parts):
            code, words = NOT_ASKED.code, NOT_ASKED.words
        return Attempt(
            attempt.part,
            attempt.try_number,
            attempt.owner,
            outcome,
            attempt.ours,
            attempt.owner_dead,
            observed_at,
            result.provider_id,
            code,
            words,
        )

    def _events(self, leg: LegState, attempt: Attempt) -> list[Outgoing]:
        return events_of(leg, attempt, self._resends(leg))

    def _resends(self, leg: LegState) -> bool:
        """Whether doubt about this leg opens the next one: once, and only for a message of one part."""
        return self._resend_once and leg.parts == 1 and is_first_sending(leg)
