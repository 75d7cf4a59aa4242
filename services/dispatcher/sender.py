"""From a waiting leg to bytes on the wire: claims in batches, each granted part at its moment, never past the lease."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Sequence
from itertools import count

import msgspec
import structlog

from libs.service_kit.config_file import Gateway
from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import BREAKER_OPEN, CLAIMED, IN_FLIGHT, THROTTLES
from libs.service_kit.transient import is_transient
from libs.service_kit.waiting import set_within
from services.dispatcher.attempts import Attempt, LegKey, LegState, attempt_reference, is_concluded, join_reference
from services.dispatcher.board import Board
from services.dispatcher.breaker import Breaker
from services.dispatcher.drivers.port import Driver, Result, Submission, Verdict
from services.dispatcher.lease import Lease, LeaseOver
from services.dispatcher.ledger import Ask, Claim, ClaimVerdict, Ledger
from services.dispatcher.throttle import Throttle

log = structlog.get_logger()

LATE_SECONDS = 0.25
"""A part later than this after its granted moment is not sent: sent later, it would exceed the rate together with what was granted for
then. Without a rate there is nothing to exceed: however late, it is sent, or slow claims would let nothing leave."""
LONGEST_LEAD_SECONDS = 1.0
"""How far ahead, at most, begin the moments that a claim asks for where claims are slow; they reach twice as far, and 250 ms. The lease
must outlast them."""
LARGEST_CLAIM = 1000
"""Segments."""
IDLE_SECONDS = 0.5
"""How long the sender waits at most before it looks again at what it may claim."""
NOTHING_GRANTED_SECONDS = 0.05
"""How long it waits after a claim that was not granted in full, or refused parts of messages whose other parts wait."""
EXPIRED_EVERY_SECONDS = 1.0
"""How often it looks for what has passed its validity before its turn has come."""
REPEAT_FIRST_SECONDS = 0.05
"""How soon a claim without an answer is repeated: what it was granted must leave within `LATE_SECONDS`. The wait doubles up to
`REPEAT_LAST_SECONDS`."""
REPEAT_LAST_SECONDS = 1.0
TOGETHER_SECONDS = 0.002
"""Parts whose moments lie this close leave in one write."""


class Sent(msgspec.Struct, eq=False):
    """A granted attempt: what the driver is given as the token of its submission, and gives back with each result."""

    leg: LegState
    attempt: Attempt
    leaves_at: float
    """By the loop's clock."""


class Sender:
    """Claims and submits. `tell` takes the results of attempts that were not sent, `look` legs whose stored attempts must be read."""

    def __init__(
        self,
        gateway: Gateway,
        lease: Lease,
        ledger: Ledger,
        board: Board,
        driver: Driver,
        tell: Callable[[Sequence[Result]], None],
        look: Callable[[Sequence[LegState]], None],
    ) -> None:
        self._gateway = gateway
        self._lease = lease
        self._ledger = ledger
        self._board = board
        self._driver = driver
        self._tell = tell
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._claims = count(1)
        self._claiming = True
        self._claim_open = False
        self._claims_take = 0.0  # how long the last claims waited for their answers (seconds)
        self._not_before = 0.0
        self._look_for_expired_at = 0.0
        self._throttle = Throttle()
        self._breaker = Breaker()
        BREAKER_OPEN.labels(gateway.id).set(0)  # the process's last instance may have left it open
        self._scheduled: list[tuple[float, int, Sent]] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None
        self._unanswered: set[Sent] = set()

    @property
    def in_flight(self) -> int:
        """Attempts that are granted, or may be, and have no result yet."""
        return len(self._unanswered) + int(self._claim_open)

    def wake(self) -> None:
        """Something may be possible that was not."""
        self._wake.set()

    def pause(self) -> None:
        """Claim nothing more; what is granted is still sent."""
        self._claiming = False

    def resume(self) -> None:
        """Claim again."""
        self._claiming = True
        self.wake()

    def withdraw(self) -> None:
        """Claim and send nothing any more: what was granted and is not written yet is not sent."""
        self.pause()
        if self._timer is not None:
            self._timer.cancel()
        unsent = [sent for _, _, sent in self._scheduled]
        self._scheduled.clear()
        self._not_sent(unsent, "the dispatcher stops")

    async def run(self) -> None:
        """Claim whenever there is something to claim and room for it, until cancelled. Raises LeaseOver."""
        while True:
            self._wake.clear()
            if not self._lease.valid:
                raise LeaseOver
            wait = await self.turn()
            if wait:
                await set_within(self._wake, wait)

    async def turn(self) -> float:
        """Claim what may be claimed now; how long to wait then, if nothing happens (seconds). Raises LeaseOver."""
        now = self._loop.time()
        moment = self._board.next_moment(now)
        room = self._room(now)
        asks = self._expired(now) or self._board.take(room)
        if asks:
            await self._claim(Claim(next(self._claims), asks, now, self._lead))
            return 0
        waits = [IDLE_SECONDS, self._throttle.wait(now) or IDLE_SECONDS]
        if moment is not None:
            waits.append(moment - now)
        if self._not_before > now:
            waits.append(self._not_before - now)
        return max(min(waits), 0.001)

    def judge(self, results: Sequence[Result]) -> None:
        """Learn from results what the gateway takes, before they are settled: while it is at fault, a refusal for now is its own and not
        the message's, and is changed to THROTTLED here. Their places in the window are free."""
        now = self._loop.time()
        breaker, was_open = self._breaker, self._breaker.open
        for result in results:
            sent = result.token
            assert isinstance(sent, Sent)
            self._unanswered.discard(sent)
            verdict = result.verdict
            if verdict is Verdict.ACCEPTED:
                breaker.worked()
                if self._throttle.active:
                    self._throttle.accepted(now)
            elif verdict is Verdict.FAILED:
                breaker.worked()
            elif verdict is Verdict.TEMPORARY or verdict is Verdict.NO_ANSWER:
                breaker.failed(sent.leg.key.message_id)
                if breaker.open:
                    self._throttle.refused(now)
                    if verdict is Verdict.TEMPORARY:
                        result.verdict = Verdict.THROTTLED
            elif verdict is Verdict.THROTTLED:
                self._throttle.refused(now)
                THROTTLES.labels(self._gateway.id).inc()
        if breaker.open is not was_open:
            log.warning("gateway at fault" if breaker.open else "gateway works again", gateway=self._gateway.id)
            BREAKER_OPEN.labels(self._gateway.id).set(int(breaker.open))
        IN_FLIGHT.labels(self._gateway.id).set(len(self._unanswered))
        self.wake()

    @property
    def _lead(self) -> float:
        """How far ahead moments must lie, so that they have not passed when the answer of their claim comes (seconds)."""
        takes = self._claims_take
        return min(takes, LONGEST_LEAD_SECONDS) if takes > LATE_SECONDS / 2 else 0.0

    def _room(self, now: float) -> int:
        """How many parts may be asked for now (segments)."""
        if not self._claiming or now < self._not_before or self._throttle.wait(now):
            return 0
        if self._throttle.active:
            return int(not self._unanswered and self._driver.free > 0)
        room = min(self._driver.free - len(self._scheduled), LARGEST_CLAIM)
        rate = self._gateway.segments_per_second
        if rate:
            return min(room, math.ceil(rate * (LATE_SECONDS + self._lead)) + 1 - len(self._scheduled))
        if room < min(self._gateway.window // 2, LARGEST_CLAIM, self._board.waiting) and not self._board.urgent:
            return 0  # a claim costs much the same whatever it asks for: the next answers make room for more
        return room

    def _expired(self, now: float) -> list[Ask]:
        """What has passed its validity ends also while the gateway takes nothing, or others go first: the claim says so of each.

        That takes no room. It is judged by Postgres's clock, as in the claim: what only our own clock calls expired would be granted, and
        sent.
        """
        if not self._claiming or now < self._look_for_expired_at:
            return []
        self._look_for_expired_at = now + EXPIRED_EVERY_SECONDS
        return self._board.take_expired(self._lease.postgres_time, LARGEST_CLAIM)

    async def _claim(self, claim: Claim) -> None:
        self._claim_open = True
        for ask in claim.asks:
            ask.leg.asked = True
        try:
            verdicts = await self._until_answered(claim)
        finally:
            self._claim_open = False
        for ask in claim.asks:  # not if it ends without an answer: it may have been granted all the same
            ask.leg.asked = False
        granted: list[Sent] = []
        unknown: dict[LegKey, LegState] = {}
        owner = self._lease.instance
        for verdict in verdicts:
            ask, leg = verdict.ask, verdict.ask.leg
            if verdict.letter == "G":
                attempt = Attempt(ask.part, ask.try_number, owner, ours=True)
                leg.attempts.append(attempt)
                granted.append(Sent(leg, attempt, claim.sent_at + verdict.leave_seconds))
            else:  # the claim wrote a row that ends the leg, or found rows that were not known
                unknown[leg.key] = leg
        if len(verdicts) < len(claim.asks):
            answered = {id(verdict.ask) for verdict in verdicts}
            rest = {ask.leg.key: ask.leg for ask in claim.asks if id(ask) not in answered}
            self._board.queue_first(rest.values())
            # A leg that another part's outcome has ended meanwhile has nothing more to claim.
            unknown |= {key: leg for key, leg in rest.items() if is_concluded(leg)}
        if unknown:
            self._look(list(unknown.values()))
        # Of some of these, parts may be left for which there was no room. Whether they still are to go, the look says.
        if len(verdicts) < len(claim.asks) or any(leg.queued for leg in unknown.values()):
            self._not_before = self._loop.time() + NOTHING_GRANTED_SECONDS
        if granted:
            self._schedule(granted)

    def _schedule(self, granted: Sequence[Sent]) -> None:
        """Write what is due by now; the rest waits for its moment."""
        CLAIMED.labels(self._gateway.id).inc(len(granted))
        self._unanswered.update(granted)
        soon = self._loop.time() + TOGETHER_SECONDS
        due: list[Sent] = []
        for sent in granted:
            if sent.leaves_at <= soon:
                due.append(sent)
            else:
                heapq.heappush(self._scheduled, (sent.leaves_at, next(self._order), sent))
        crash_point("dispatcher.claim-write")
        self._send_due(due)

    async def _until_answered(self, claim: Claim) -> list[ClaimVerdict]:
        """A claim is repeated until it is answered: it may have been granted although the answer was lost."""
        delay = REPEAT_FIRST_SECONDS
        while True:
            sent_at = self._loop.time()
            try:
                verdicts = await self._ledger.claim(claim, sent_at - claim.sent_at)
            except LeaseOver:
                self._lease.end()
                raise
            except Exception as error:
                if not is_transient(error):
                    raise
                claim.repeated = True
                log.warning("claim not answered", gateway=self._gateway.id, reason=type(error).__name__)
                await asyncio.sleep(delay)
                delay = min(delay * 2, REPEAT_LAST_SECONDS)
            else:
                self._lease.renewed(sent_at)
                self._claims_take = max(self._loop.time() - sent_at, self._claims_take * 0.9)
                return verdicts

    def _send_due(self, due_already: Sequence[Sent] = ()) -> None:
        """Write what is due; at most one timer waits for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        due = list(due_already)
        while self._scheduled and self._scheduled[0][0] <= now + TOGETHER_SECONDS:
            due.append(heapq.heappop(self._scheduled)[2])
        if self._scheduled:
            self._timer = self._loop.call_at(self._scheduled[0][0], self._send_due)
        if not self._lease.valid:
            self._not_sent(due, "the lease is over")
            return
        latest = now - (LATE_SECONDS if self._gateway.segments_per_second else math.inf)
        # The claim judged validity when it began. By its own clock or a little less: what is over here, the next claim ends as expired.
        postgres_time = self._lease.postgres_time
        timely: list[Sent] = []
        late: list[Sent] = []
        over: list[Sent] = []
        for sent in due:
            if sent.leaves_at < latest:
                late.append(sent)
            elif sent.leg.event.data.message.valid_until <= postgres_time:
                over.append(sent)
            else:
                timely.append(sent)
        self._not_sent(late, "its moment had passed")
        self._not_sent(over, "its validity is over")
        if timely:
            self._driver.submit([_submission(sent) for sent in timely])

    def _not_sent(self, unsent: Sequence[Sent], words: str) -> None:
        if unsent:
            log.warning("not sent", gateway=self._gateway.id, segments=len(unsent), reason=words)
            self._tell([Result(sent, Verdict.NOT_SENT, words=words) for sent in unsent])


def _submission(sent: Sent) -> Submission:
    leg, attempt = sent.leg, sent.attempt
    part = attempt.part
    return Submission(sent, leg.event.data, part, join_reference(leg), attempt_reference(leg, part, attempt.try_number))
